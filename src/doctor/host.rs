//! Finds problems of the host itself: its ports, file systems and limits.

#![expect(clippy::disallowed_methods, reason = "reads /proc, and looks for directories")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, stat};
use rustix::process::{Resource, geteuid, getrlimit};

use super::Severity::{Fails, Warns};
use super::{Case, Findings, Id};
use crate::host::{absolute, leases};
use crate::manifest;
use crate::name::PortBlock;
use crate::provider::{BlockRange, Registry, RootDirectory};

/// Largest number of files that one job has open, and that the rest of the program has open: with 64 jobs, 700 were
/// measured at once.
const FILES_A_JOB: u64 = 16;
const FILES_BESIDE: u64 = 64;

pub(super) fn inspect(case: &Case<'_>, findings: &mut Findings) {
    ports(case, findings);
    shared_ports(case, findings);
    state_directory(case, findings);
    file_systems(case, findings);
    open_files(case, findings);
}

/// Compares the range of blocks with the range that the kernel gives to outgoing connections.
fn ports(case: &Case<'_>, findings: &mut Findings) {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    let ephemeral = pair(&read("ip_local_port_range"), char::is_whitespace);
    let reserved = reserved(&read("ip_local_reserved_ports"));
    let Some(ephemeral) = ephemeral else { return };
    let registry = Registry::built_in();
    let ranges: Vec<BlockRange> = match case.plan {
        Some(Ok(plan)) => plan
            .sessions
            .iter()
            .flat_map(|session| &session.allocations)
            .filter_map(|allocation| registry.get(&allocation.kind)?.block_range(allocation))
            .collect(),
        _ => registry.iter().filter_map(|kind| kind.default_block_range(&manifest::Options::new())).collect(),
    };
    let ranges: BTreeSet<PortBlock> = ranges.into_iter().filter_map(ports_of).collect();
    for range in ranges {
        let met = |port: &u16| {
            (ephemeral.start()..=ephemeral.end()).contains(port)
                && !reserved.iter().any(|block| within(*block, *port))
        };
        let count = range.ports().filter(met).count();
        if count > 0 {
            findings.add(
                Warns,
                Id::PortsEphemeral,
                format!(
                    "{count} ports of {range}, which blocks are cut from, lie in {ephemeral}, where any outgoing \
                     connection may take one"
                ),
                format!(
                    "set base-port below {}, or reserve them: sysctl -w net.ipv4.ip_local_reserved_ports={range}",
                    ephemeral.start()
                ),
            );
        }
    }
}

/// Checks the directory in which leases are published.
fn shared_ports(case: &Case<'_>, findings: &mut Findings) {
    if let Some(obstacle) = leases::obstacle(case.host) {
        findings.add(
            Warns,
            Id::PortsUnshared,
            format!("other users of this host do not see which ports are leased here: {obstacle}"),
            "have its owner or root remove or repair that; or name a directory in SEEDBED_PORT_REGISTRY that all users have in \
             theirs (root's, mode 1777); or set it to `none` on a host with one user",
        );
    }
}

/// Returns the range of ports that is divided into blocks.
fn ports_of(BlockRange { base, size, count, .. }: BlockRange) -> Option<PortBlock> {
    let end = base.saturating_add(size.saturating_mul(count)).saturating_sub(1);
    PortBlock::new(base, end.min(u16::MAX.into()))
}

fn within(block: PortBlock, port: u16) -> bool {
    (block.start()..=block.end()).contains(&port)
}

/// Parses `8080,9000-9100`.
pub(super) fn reserved(text: &str) -> Vec<PortBlock> {
    let one = |part: &str| pair(part, |c| c == '-').or_else(|| PortBlock::single(part.trim().parse().ok()?));
    text.trim().split(',').filter_map(one).collect()
}

fn pair(text: &str, separator: impl Fn(char) -> bool) -> Option<PortBlock> {
    let mut ends = text.trim().split(separator).filter(|part| !part.is_empty()).map(str::parse);
    PortBlock::new(ends.next()?.ok()?, ends.next()?.ok()?)
}

fn state_directory(case: &Case<'_>, findings: &mut Findings) {
    let state = &case.host.state;
    let shown = state.display();
    let existing = nearest(state);
    if access(&existing, Access::WRITE_OK | Access::EXEC_OK).is_err() || !existing.is_dir() {
        findings.add(
            Fails,
            Id::StateDirectory,
            format!(
                "the state directory {shown} cannot be written: {} does not let this user",
                existing.display()
            ),
            "make it writable, or name another with SEEDBED_STATE_DIR",
        );
        return;
    }
    let Ok(found) = stat(state) else { return };
    let owner = found.st_uid;
    if owner != geteuid().as_raw() {
        findings.add(
            Warns,
            Id::StateDirectory,
            format!("the state directory {shown} belongs to another user ({owner})"),
            "name one of your own with SEEDBED_STATE_DIR: seedbed removes what its records name",
        );
    } else if found.st_mode & 0o022 != 0 {
        findings.add(
            Warns,
            Id::StateDirectory,
            format!("others can write to the state directory {shown}"),
            format!("chmod go-w {shown}: seedbed removes what its records name"),
        );
    }
}

fn file_systems(case: &Case<'_>, findings: &mut Findings) {
    let mut places =
        vec![("the state directory", case.host.state.clone()), ("the workspace", case.workspace.to_owned())];
    places.extend(root_directories(case));
    for (what, path) in places {
        if let Some(kind) = network_file_system(&nearest(&path)) {
            findings.add(
                Warns,
                Id::NetworkFileSystem,
                format!("{what} {} is on {kind}, where locks may not work between hosts", path.display()),
                "keep it on a local disk; let one host alone work with it",
            );
        }
    }
}

/// Returns the type of a network file system; `None` for a local one.
#[cfg(target_os = "linux")]
fn network_file_system(path: &Path) -> Option<&'static str> {
    let found = rustix::fs::statfs(path).ok()?;
    // Wider than 32 bits on some systems, and never negative there.
    #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "a magic number of 32 bits")]
    let magic = found.f_type as u32;
    kind_of(magic)
}

#[cfg(not(target_os = "linux"))]
fn network_file_system(_path: &Path) -> Option<&'static str> {
    None
}

/// Returns the type of a network file system by its number in statfs(2).
#[cfg(target_os = "linux")]
pub(super) fn kind_of(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517B | 0xFF53_4D42 | 0xFE53_4D42 => "SMB",
        0x0102_1997 => "9p",
        0x5346_414F | 0x6B41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x00C3_6400 => "Ceph",
        0x0BD0_0BD0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x6573_5546 => "FUSE (sshfs is one)",
        _ => return None,
    })
}

fn open_files(case: &Case<'_>, findings: &mut Findings) {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return };
    let jobs = u64::try_from(case.host.jobs.get()).unwrap_or(u64::MAX);
    let needed = jobs.saturating_mul(FILES_A_JOB).saturating_add(FILES_BESIDE);
    if limit < needed {
        findings.add(
            Warns,
            Id::OpenFiles,
            format!("{limit} files may be open at once, and {jobs} jobs may need {needed}"),
            format!("ulimit -n {needed}, or fewer --jobs"),
        );
    }
}

/// Returns the directories in which the planned resources are created, or the default directories without a plan, each
/// with its role. Paths are absolute.
fn root_directories(case: &Case<'_>) -> BTreeSet<(&'static str, PathBuf)> {
    let registry = Registry::built_in();
    let roots: BTreeSet<RootDirectory> = match case.plan {
        Some(Ok(plan)) => plan
            .sessions
            .iter()
            .flat_map(|session| &session.allocations)
            .filter_map(|allocation| registry.get(&allocation.kind)?.root_directory(Some(allocation)))
            .collect(),
        _ => registry.iter().filter_map(|kind| kind.root_directory(None)).collect(),
    };
    let absolute = |root: RootDirectory| (root.role, absolute(case.workspace, &root.path));
    roots.into_iter().map(absolute).collect()
}

/// Returns the path, or the nearest directory above it that exists.
pub(super) fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}
