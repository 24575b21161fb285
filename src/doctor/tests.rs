use super::machine::{kind_of, reserved};
use super::repository::{program, version};
use crate::name::PortBlock;

#[test]
fn versions_of_git() {
    for (said, expected) in [
        ("git version 2.47.3", Some((2, 47))),
        ("git version 2.39.5 (Apple Git-154)", Some((2, 39))),
        ("git version 2.20", Some((2, 20))),
        ("git version 3.0.rc1.windows.1", Some((3, 0))),
        ("hub version 2", None),
        ("", None),
    ] {
        assert_eq!(version(said), expected, "{said:?}");
    }
}

#[test]
fn reserved_ports() {
    let block = |start, end| PortBlock::new(start, end).unwrap();
    assert_eq!(reserved("\n"), []);
    assert_eq!(reserved("8080\n"), [block(8080, 8080)]);
    assert_eq!(
        reserved("8080,9000-9100,40000-40001"),
        [block(8080, 8080), block(9000, 9100), block(40000, 40001)]
    );
}

#[test]
fn programs_of_commands() {
    assert_eq!(program("git-lfs filter-process"), Some("git-lfs"));
    assert_eq!(program("/opt/x/clean %f"), Some("/opt/x/clean"));
    // What the shell makes of these is not known.
    assert_eq!(program("$HOME/clean"), None);
    assert_eq!(program("\"a b\" c"), None);
    assert_eq!(program(""), None);
}

#[cfg(target_os = "linux")]
#[test]
fn network_file_systems() {
    assert_eq!(kind_of(0x6969), Some("NFS"));
    assert_eq!(kind_of(0xFF53_4D42), Some("SMB"));
    // ext4, tmpfs, btrfs, overlayfs.
    for local in [0xEF53, 0x0102_1994, 0x9123_683E, 0x794C_7630] {
        assert_eq!(kind_of(local), None);
    }
}
