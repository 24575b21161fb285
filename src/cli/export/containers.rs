//! Sessions as containers: their mounts, variables and ports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use seedbed::apply;
use seedbed::discovery;
use seedbed::host::text::printable;
use seedbed::provider::MountAccess;
use seedbed::report::error;

use super::Arguments;
use crate::cli::exit::Failure;
use crate::cli::lookup::{Active, Family};
use crate::cli::project::Project;

/// Containers of the sessions of one swarm.
#[derive(Debug)]
pub(super) struct Containers<'f> {
    /// Name of the swarm.
    pub(super) swarm: &'f str,
    /// Digest of the applied plan.
    pub(super) digest: &'f str,
    /// Image of all containers; `None` if the user adds images.
    pub(super) image: Option<&'f str>,
    /// Sessions in the order of the tree.
    pub(super) sessions: Vec<Container>,
}

/// Container of one session.
#[derive(Debug)]
pub(super) struct Container {
    /// Path of the session in the tree.
    pub(super) path: String,
    /// Base name of the session's files, which no other session of the swarm has.
    pub(super) scoped_name: String,
    /// Absolute path of the working directory.
    pub(super) directory: PathBuf,
    /// Files and directories to mount at the paths that they have on the host, in this order.
    pub(super) mounts: BTreeMap<PathBuf, MountAccess>,
    /// Variables, by name.
    pub(super) environment: BTreeMap<String, String>,
    /// Ports that programs in the container open.
    pub(super) ports: Vec<u16>,
}

impl<'f> Containers<'f> {
    /// Returns the containers of the sessions that the user names; without names, of all that have a directory.
    pub(super) fn new(
        project: &Project,
        family: &'f Family<'_>,
        arguments: &'f Arguments,
    ) -> Result<Self, Failure> {
        let mut requested = family.requested(&arguments.sessions)?;
        if arguments.sessions.is_empty() {
            requested.retain(|active| has_directory(project, active));
        }
        if requested.is_empty() {
            return Err(Failure::new(error::CONTAINER_UNUSABLE, "no session has a directory".to_owned()));
        }
        let sessions = requested.into_iter().map(|active| container(project, active));
        Ok(Self {
            swarm: family.record.plan.swarm(),
            digest: family.record.plan.digest(),
            image: arguments.image.as_deref(),
            sessions: sessions.collect::<Result<_, _>>()?,
        })
    }

    /// Returns the only session of a format that has one; an error if there are more.
    pub(super) fn only(&self, format: &str) -> Result<&Container, Failure> {
        if let [session] = &self.sessions[..] {
            return Ok(session);
        }
        let text = format!(
            "`{format}` has one session\nhelp: name it: `seedbed export {} --format {format}`",
            self.sessions[0].path
        );
        Err(Failure::new(error::SESSION_AMBIGUOUS, text))
    }
}

fn has_directory(project: &Project, active: &Active<'_>) -> bool {
    let mut allocations = active.session.allocations.iter();
    allocations.any(|allocation| {
        project
            .registry
            .get(&allocation.kind)
            .is_some_and(|kind| kind.working_directory(allocation).is_some())
    })
}

fn container(project: &Project, active: Active<'_>) -> Result<Container, Failure> {
    let registry = &project.registry;
    let directory = active.directory(registry)?;
    let Active { swarm, record, session } = active;
    let needs = apply::container_needs(swarm, registry, record, session).map_err(|why| {
        let text = format!("session {} cannot work in a container: {}", session.path, printable(&why));
        Failure::new(error::CONTAINER_UNUSABLE, text)
    })?;
    let mut environment = discovery::environment(swarm, session);
    environment.extend(needs.environment);
    let named = session.allocations.iter().flat_map(|allocation| {
        registry.get(&allocation.kind).map(|kind| kind.named_ports(allocation)).unwrap_or_default()
    });
    let mut ports: Vec<_> = named.map(|(_, port)| port).collect();
    ports.sort_unstable();
    Ok(Container {
        path: session.path.to_string(),
        scoped_name: session.scoped_name.clone(),
        directory,
        mounts: needs.mounts,
        environment,
        ports,
    })
}

impl Container {
    /// Returns the writable mount that contains the working directory.
    pub(super) fn workspace(&self) -> Option<&Path> {
        let writable = self.mounts.iter().filter(|(_, access)| **access == MountAccess::Writable);
        writable.map(|(path, _)| path.as_path()).rfind(|path| self.directory.starts_with(path))
    }

    /// Returns a value of this container as it is, or the failure that the format has no form for the value.
    pub(super) fn refuse(&self, what: &str, why: &str) -> Failure {
        let what = printable(what);
        Failure::new(error::EXPORT_VALUE, format!("session {}: {what} has {why}", self.path))
    }

    /// Returns a path as text without control characters, which the lists of mounts cannot have.
    pub(super) fn text<'p>(&self, path: &'p Path) -> Result<&'p str, Failure> {
        let refused = || self.refuse(&path.to_string_lossy(), "a character that a mount cannot have");
        path.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(refused)
    }
}
