#![expect(clippy::disallowed_methods, reason = "tests set the host up")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use tempfile::TempDir;

use super::super::tests::free_ports;
use super::super::{Error, Lease, Leased, bring_back, grant, revoke, revoke_aside, set_aside};
use super::*;
use crate::name::PortBlock;

/// Several state directories of one user, with one shared directory.
struct Lab {
    directory: TempDir,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { directory: TempDir::new().unwrap() };
        fs::create_dir(lab.shared()).unwrap();
        fs::set_permissions(lab.shared(), fs::Permissions::from_mode(0o1777)).unwrap();
        lab
    }

    fn shared(&self) -> PathBuf {
        self.directory.path().join("shared")
    }

    fn host(&self, state: &str) -> Host {
        let mut host = Host::new(vec![], self.directory.path().join(state));
        host.shared_ports = Some(self.shared());
        host
    }

    /// Returns the files in the shared directory.
    fn all(&self) -> Vec<String> {
        let names = fs::read_dir(self.shared()).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }
}

fn block(start: u16) -> PortBlock {
    PortBlock::new(start.into(), (start + 7).into()).unwrap()
}

fn lease(session: &str, start: u16) -> Lease {
    let resource = Leased::Ports(block(start));
    Lease::new(session.to_owned(), "0".repeat(32), "/workspace".into(), resource)
}

#[test]
fn a_lease_of_one_state_directory_is_not_granted_to_another() {
    let (lab, p) = (Lab::new(), free_ports(16));
    let (one, other) = (lab.host("one"), lab.host("other"));
    grant(&one, &lease("s/a", p), &[]).unwrap();
    assert_eq!(others(&one), []);
    let user = geteuid().as_raw();
    let holder = format!("another state directory of user {user}");
    assert_eq!(others(&other), [Published { key: Key::Ports(block(p)), holder }]);
    let error = grant(&other, &lease("s/a", p + 7), &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "ports {}-{} are not free: {p}-{} are leased to a session of another state directory of user {user}",
            p + 7,
            p + 14,
            p + 7
        )
    );
    assert_eq!(others(&one), [], "what is refused is published no more");
    grant(&other, &lease("s/a", p + 8), &[]).unwrap();
    revoke(&one, &lease("s/a", p)).unwrap();
    assert_eq!(others(&other), []);
    revoke(&other, &lease("s/a", p + 8)).unwrap();
    assert_eq!(lab.all(), Vec::<String>::new());
}

#[test]
fn a_lease_that_is_set_aside_stays_published() {
    let (lab, p) = (Lab::new(), free_ports(8));
    let (one, other, own) = (lab.host("one"), lab.host("other"), lease("s/a", p));
    grant(&one, &own, &[]).unwrap();
    set_aside(&one, &own).unwrap();
    assert_eq!(others(&other).len(), 1);
    bring_back(&one, &own).unwrap();
    set_aside(&one, &own).unwrap();
    // The replacement has the same session and ports.
    grant(&one, &own, &[]).unwrap();
    revoke_aside(&one, &own).unwrap();
    assert_eq!(others(&other).len(), 1);
    revoke(&one, &own).unwrap();
    assert_eq!(others(&other), []);
}

/// Another user locks the shared directory without end.
#[test]
fn racing_grants_of_several_state_directories_never_give_one_port_twice() {
    for is_locked in [false, true] {
        let (lab, p) = (Lab::new(), free_ports(8));
        let keeper = fs::File::open(lab.shared()).unwrap();
        if is_locked {
            keeper.lock().unwrap();
        }
        let hosts: Vec<Host> = (0..8).map(|n| lab.host(&n.to_string())).collect();
        let granted = std::thread::scope(|scope| {
            let grants: Vec<_> =
                hosts.iter().map(|host| scope.spawn(|| grant(host, &lease("s/a", p), &[]).is_ok())).collect();
            grants.into_iter().map(|grant| usize::from(grant.join().unwrap())).sum::<usize>()
        });
        assert!(granted <= 1, "{granted} grants");
        let left = hosts.iter().map(|host| super::super::all(host).unwrap().len()).sum::<usize>();
        assert_eq!(left, granted);
        assert_eq!(lab.all().len(), granted);
    }
}

#[test]
fn ports_that_a_deleted_state_directory_published_are_free() {
    let (lab, p) = (Lab::new(), free_ports(16));
    let (gone, killed, other) = (lab.host("gone"), lab.host("killed"), lab.host("other"));
    grant(&gone, &lease("s/a", p), &[]).unwrap();
    grant(&killed, &lease("s/a", p + 8), &[]).unwrap();
    fs::remove_dir_all(&gone.state).unwrap();
    // State after a run that was killed before it withdrew the lease.
    fs::remove_dir_all(killed.state.join(DIRECTORY)).unwrap();
    fs::create_dir(killed.state.join(DIRECTORY)).unwrap();
    assert_eq!(others(&other), []);
    grant(&other, &lease("s/b", p), &[]).unwrap();
    assert_eq!(lab.all().len(), 2, "the directory of `gone` is removed: {:?}", lab.all());
    // The next grant of that state directory withdraws the lease, and publishes leases again that a cleaner removed.
    let own = lab.shared().join(name_of(&other));
    fs::remove_dir_all(&own).unwrap();
    let again = lab.host("other");
    grant(&again, &lease("s/b", p), &[]).unwrap();
    assert_eq!(entries(fs::File::open(&own).unwrap().as_fd()).len(), 1);
    grant(&lab.host("killed"), &lease("s/c", p + 8), &[]).unwrap();
    let of_killed = fs::File::open(lab.shared().join(name_of(&killed))).unwrap();
    assert_eq!(entries(of_killed.as_fd()).len(), 1);
}

#[test]
fn every_user_can_read_what_is_published_and_no_cleaner_removes_it() {
    let (lab, p) = (Lab::new(), free_ports(8));
    let host = lab.host("one");
    grant(&host, &lease("s/a", p), &[]).unwrap();
    let own = lab.shared().join(name_of(&host));
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&own), 0o755);
    let entry = entries(fs::File::open(&own).unwrap().as_fd()).pop_first().unwrap();
    assert_eq!(mode(&own.join(&entry)), 0o1444);
    assert_eq!(fs::read(own.join(entry)).unwrap(), b"", "it tells nothing but ports");
}

/// Any planted file is skipped; at most it blocks ports for this user.
#[test]
fn planted_files_of_other_users_do_no_harm() {
    let (lab, p) = (Lab::new(), free_ports(16));
    let at = |name: &str| lab.shared().join(format!("{PREFIX}{name}"));
    let fifo = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    fifo(&at("fifo"));
    fs::write(at("file"), "").unwrap();
    symlink("/", at("link")).unwrap();
    symlink(at("loop"), at("loop")).unwrap();
    fs::create_dir(at("planted")).unwrap();
    let entry = |block: &str| at("planted").join(format!("{block}.{}", "0".repeat(MARK_DIGITS)));
    fifo(&entry("20000-20001"));
    symlink("/dev/zero", entry("20002-20003")).unwrap();
    fs::create_dir(entry("20004-20005")).unwrap();
    fs::write(entry("20007-20006"), "").unwrap();
    fs::write(entry("20008-70000"), "").unwrap();
    fs::write(at("planted").join("20010-20011"), "").unwrap();
    let host = lab.host("one");
    assert_eq!(others(&host), [], "it names no state directory of this user");
    grant(&host, &lease("s/a", p), &[]).unwrap();
    if !geteuid().is_root() {
        return eprintln!("NOT TESTED: only root can make another user's files");
    }
    std::os::unix::fs::chown(at("planted"), Some(54321), None).unwrap();
    let keys: Vec<String> = others(&host).iter().map(|other| other.key.to_string()).collect();
    assert_eq!(keys, ["20000-20001", "20002-20003", "20004-20005"], "by their names alone");
    assert!(others(&host).iter().all(|other| other.holder == "user 54321"));
    // A planted file in place of this user's own directory: leases are granted, and the problem is reported.
    let other = lab.host("other");
    let own = lab.shared().join(name_of(&other));
    fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(54321), None).unwrap();
    grant(&other, &lease("s/b", p + 8), &[]).unwrap();
    assert_eq!(obstacle(&other), Some(format!("{} belongs to user 54321", own.display())));
    revoke(&other, &lease("s/b", p + 8)).unwrap();
    assert!(own.exists());
}

#[test]
fn a_directory_that_users_cannot_share_is_not_used() {
    let (lab, p) = (Lab::new(), free_ports(8));
    let check = |mode, expected: Option<&str>| {
        fs::set_permissions(lab.shared(), fs::Permissions::from_mode(mode)).unwrap();
        let expected = expected.map(|expected| format!("{} {expected}", lab.shared().display()));
        assert_eq!(obstacle(&lab.host("one")), expected);
    };
    check(0o1777, None);
    check(0o777, Some("has no sticky bit, so that users can remove one another's files"));
    grant(&lab.host("one"), &lease("s/a", p), &[]).unwrap();
    assert_eq!(lab.all(), Vec::<String>::new());
    if geteuid().is_root() {
        std::os::unix::fs::chown(lab.shared(), Some(54321), None).unwrap();
        check(0o1777, Some("belongs to user 54321"));
    }
    fs::remove_dir(lab.shared()).unwrap();
    assert!(obstacle(&lab.host("one")).unwrap().contains("cannot be opened"));
    assert!(matches!(grant(&lab.host("one"), &lease("s/a", p), &[]), Ok(())));
    assert!(matches!(grant(&lab.host("one"), &lease("s/b", p), &[]), Err(Error::Leased { .. })));
}
