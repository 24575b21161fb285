use super::host::{kind_of, reserved};
use super::repository::program;
use crate::name::PortBlock;

#[test]
fn reserved_ports_are_parsed() {
    let block = |start, end| PortBlock::new(start, end).unwrap();
    assert_eq!(reserved("\n"), []);
    assert_eq!(reserved("8080\n"), [block(8080, 8080)]);
    assert_eq!(
        reserved("8080,9000-9100,40000-40001"),
        [block(8080, 8080), block(9000, 9100), block(40000, 40001)]
    );
}

#[test]
fn program_of_a_command_is_found() {
    assert_eq!(program("git-lfs filter-process"), Some("git-lfs"));
    assert_eq!(program("/opt/x/clean %f"), Some("/opt/x/clean"));
    // The shell's result for these is not known.
    assert_eq!(program("$HOME/clean"), None);
    assert_eq!(program("\"a b\" c"), None);
    assert_eq!(program(""), None);
}

#[cfg(target_os = "linux")]
#[test]
fn network_file_systems_are_recognised() {
    assert_eq!(kind_of(0x6969), Some("NFS"));
    assert_eq!(kind_of(0xFF53_4D42), Some("SMB"));
    // ext4, tmpfs, btrfs, overlayfs.
    for local in [0xEF53, 0x0102_1994, 0x9123_683E, 0x794C_7630] {
        assert_eq!(kind_of(local), None);
    }
}
