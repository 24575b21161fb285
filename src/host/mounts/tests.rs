#![expect(clippy::disallowed_methods, reason = "tests look at the disk behind the code's back")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;

/// Name of the directory of a trial whose process has ended.
const KILLED: &str = ".trial.seedbed-1-0";

/// A directory with the layers of an overlay below it, and the mount point.
struct Lab {
    _directory: tempfile::TempDir,
    top: Root,
}

impl Lab {
    /// Returns `None`, with a message, if overlays cannot be mounted here. The trial has to give the same result.
    fn new(name: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let top = Root::create(&directory.path().canonicalize().unwrap().join(name)).unwrap();
        for part in ["lower", "upper", "work", "mount"] {
            top.create_directories(Path::new(part)).unwrap();
        }
        let lab = Self { _directory: directory, top };
        let tried = trial(&lab.top);
        match lab.mount() {
            Ok(()) => assert_eq!(tried, Ok(())),
            Err(error) => {
                eprintln!("NOT TESTED, overlays cannot be mounted here: {error}");
                assert!(tried.is_err());
                return None;
            }
        }
        Some(lab)
    }

    fn mount(&self) -> Result<(), Error> {
        let at = |name: &str| self.top.path().join(name);
        let (lower, upper, work) = (at("lower"), at("upper"), at("work"));
        let target = self.top.directory(Path::new("mount")).unwrap().unwrap();
        mount(Layers { lower: &lower, upper: &upper, work: &work }, &target)
    }

    fn unmount(&self) -> Result<bool, Error> {
        unmount(&self.top, OsStr::new("mount"))
    }

    fn at(&self, path: &str) -> PathBuf {
        self.top.path().join(path)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.unmount();
        if let Ok(Some(killed)) = self.top.directory(Path::new(KILLED)) {
            let _ = unmount(&killed, OsStr::new("mount"));
        }
    }
}

#[test]
fn writes_go_to_the_upper_layer_for_any_path() {
    for name in ["plain", "comma,colon:back\\slash", "space and \"quote\""] {
        let Some(lab) = Lab::new(name) else { return };
        fs::write(lab.at("lower/old"), "old").unwrap();
        fs::write(lab.at("mount/new"), "new").unwrap();
        assert_eq!(fs::read_to_string(lab.at("mount/old")).unwrap(), "old");
        assert!(lab.at("upper/new").is_file() && !lab.at("lower/new").exists(), "{name}");
        assert!(lab.unmount().unwrap());
        assert!(!lab.at("mount/new").exists());
        assert!(!lab.unmount().unwrap(), "nothing is left to unmount");
    }
}

#[test]
fn directories_of_the_lower_layer_can_be_renamed() {
    let Some(lab) = Lab::new("plain") else { return };
    fs::create_dir(lab.at("lower/directory")).unwrap();
    fs::write(lab.at("lower/directory/file"), "x").unwrap();
    fs::rename(lab.at("mount/directory"), lab.at("mount/renamed")).unwrap();
    lab.unmount().unwrap();
    lab.mount().unwrap();
    assert_eq!(fs::read_to_string(lab.at("mount/renamed/file")).unwrap(), "x");
}

#[test]
fn a_removal_stops_before_what_is_mounted() {
    let Some(lab) = Lab::new("plain") else { return };
    fs::write(lab.at("mount/precious"), "x").unwrap();
    let parent = Root::open(lab.top.path().parent().unwrap()).unwrap();
    let error = parent.remove_all(Path::new("plain")).unwrap_err().to_string();
    assert!(error.contains("plain/mount"), "{error}");
    assert!(lab.at("mount/precious").is_file());
}

/// The device number is the same on both sides.
#[test]
fn removal_stops_before_a_bind_mount_of_the_same_file_system() {
    let Some(lab) = Lab::new("plain") else { return };
    lab.unmount().unwrap();
    let elsewhere = lab.top.path().with_file_name("elsewhere");
    fs::create_dir_all(elsewhere.join("deep")).unwrap();
    fs::write(elsewhere.join("deep/precious"), "x").unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o500)).unwrap();
    rustix::mount::mount_bind(&elsewhere, lab.at("mount")).unwrap();
    let parent = Root::open(lab.top.path().parent().unwrap()).unwrap();
    let removals: [&dyn Fn() -> Result<(), files::Error>; 3] =
        [&|| parent.remove_all(Path::new("plain/mount")), &|| parent.remove_all(Path::new("plain")), &|| {
            parent.remove_all_in_parallel(Path::new("plain"))
        }];
    for remove in removals {
        let error = remove().unwrap_err();
        assert!(matches!(&error, files::Error::Mounted { path } if path.ends_with("plain/mount")), "{error}");
    }
    // The mount is no overlay of seedbed either.
    assert!(matches!(lab.unmount().unwrap_err(), Error::Foreign { .. }));
    rustix::mount::unmount(lab.at("mount"), rustix::mount::UnmountFlags::empty()).unwrap();
    assert!(elsewhere.join("deep/precious").is_file());
    assert_eq!(fs::metadata(&elsewhere).unwrap().permissions().mode() & 0o777, 0o500);
}

#[test]
fn mount_in_use_is_kept_and_its_user_named() {
    let Some(lab) = Lab::new("plain") else { return };
    let mut sleeper = std::process::Command::new("sleep");
    let mut sleeper = sleeper.arg("600").current_dir(lab.at("mount")).spawn().unwrap();
    let error = lab.unmount().unwrap_err().to_string();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(error.contains(&format!("sleep (pid {})", sleeper.id())), "{error}");
    assert!(lab.unmount().unwrap());
}

#[test]
fn every_mount_at_a_path_is_removed() {
    let Some(lab) = Lab::new("plain") else { return };
    for name in ["more", "more/upper", "more/work"] {
        fs::create_dir(lab.at(name)).unwrap();
    }
    let target = lab.top.directory(Path::new("mount")).unwrap().unwrap();
    let (lower, upper, work) = (lab.at("lower"), lab.at("more/upper"), lab.at("more/work"));
    mount(Layers { lower: &lower, upper: &upper, work: &work }, &target).unwrap();
    drop(target);
    lab.unmount().unwrap();
    assert!(!lab.top.is_mount_point(OsStr::new("mount")).unwrap());
}

#[test]
fn a_trial_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let top = Root::open(directory.path()).unwrap();
    let tried = trial(&top);
    assert!(top.names().unwrap().is_empty());
    // An upper layer cannot be on an overlay.
    let Some(lab) = Lab::new("plain") else { return };
    assert_eq!(tried, Ok(()));
    let on_overlay = lab.top.directory(Path::new("mount")).unwrap().unwrap();
    assert!(trial(&on_overlay).unwrap_err().contains("the file system there cannot store"));
    assert!(on_overlay.names().unwrap().is_empty());
}

#[test]
fn mount_of_a_killed_trial_is_removed() {
    let Some(lab) = Lab::new("killed") else { return };
    let top = lab.top.create_directories(Path::new(KILLED)).unwrap();
    for part in ["lower", "upper", "work", "mount"] {
        top.create_directories(Path::new(part)).unwrap();
    }
    let at = |part: &str| top.path().join(part);
    let target = top.directory(Path::new("mount")).unwrap().unwrap();
    mount(Layers { lower: &at("lower"), upper: &at("upper"), work: &at("work") }, &target).unwrap();
    drop((target, top));
    // A directory that another process has locked is not removed.
    let held = lab.top.make_temporary_directory(OsStr::new(TRIAL)).unwrap();
    sweep(&lab.top).unwrap();
    assert!(!lab.at(KILLED).exists());
    assert!(lab.top.path().join(&held.name).exists());
    drop(held);
    sweep(&lab.top).unwrap();
    let names: Vec<_> = lab.top.names().unwrap().into_iter().collect();
    assert_eq!(names, ["lower", "mount", "upper", "work"]);
}
