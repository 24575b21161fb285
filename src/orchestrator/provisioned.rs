//! An active session: its context, and its release.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Error, Shared};
use crate::apply::{self, Context, Destroy, Event, Unsaved};
use crate::discovery::{self, Snapshot};
use crate::host;
use crate::host::files::Root;
use crate::plan::Session;
use crate::state::{Record, Swarm};

/// An active session.
///
/// A drop releases nothing: the session survives the process, and [`super::Orchestrator::active`] finds it.
pub struct Provisioned {
    shared: Arc<Shared>,
    snapshot: Snapshot,
    owner: String,
    default_file: DiscoveryFile,
    released: AtomicBool,
}

/// Values that are needed to start a program in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuntimeInjection {
    /// Directory in which to start the program.
    pub working_directory: PathBuf,
    /// Complete environment of the program, with `AGENT_DISCOVERY_FILE`.
    pub env: BTreeMap<String, String>,
    /// Absolute path of the discovery file.
    pub discovery_file: PathBuf,
}

/// Work that was saved before its session was released.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RescuedWork {
    /// Full name of the ref with the work, such as `refs/seedbed/rescue/…`.
    pub reference: String,
    /// Shell command that restores the work in a new worktree.
    pub command: String,
    /// Details that the command does not restore, one line each.
    pub missing: Vec<String>,
}

/// Default location of a session's discovery file.
struct DiscoveryFile {
    path: PathBuf,
    /// Directory that other paths are relative to: only this session's.
    directory: PathBuf,
    /// Directory from which the file is reached without following links.
    anchor: PathBuf,
}

impl Provisioned {
    pub(super) fn new(shared: Arc<Shared>, swarm: &Swarm<'_>, record: &Record, session: &Session) -> Self {
        let snapshot =
            discovery::snapshot(record, session, &shared.registry, swarm.workspace(), &swarm.host().state);
        let path = discovery::file(swarm, session);
        let (directory, anchor) = if session.discovery_file.is_some() {
            (snapshot.working_directory.clone(), swarm.workspace().to_owned())
        } else {
            // A session without its own directory would otherwise work, and have its file, in the directory of every
            // other such session.
            let own = path.parent().unwrap_or(&path).to_owned();
            (own.clone(), own)
        };
        Self {
            shared,
            snapshot,
            owner: record.owner.clone(),
            default_file: DiscoveryFile { path, directory, anchor },
            released: AtomicBool::new(false),
        }
    }

    /// Returns the absolute directory of the session: its worktree, or the workspace root if it has none.
    pub fn working_directory(&self) -> &Path {
        &self.snapshot.working_directory
    }

    /// Returns `base` overridden by the session's variables.
    pub fn injected_env(&self, base: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
        let own = &self.snapshot.soft_constraints.env;
        base.into_iter().chain(own.iter().map(|(name, value)| (name.clone(), value.clone()))).collect()
    }

    /// Returns the prompt after the session's sections and `extra_sections`; only the prompt if there are no sections.
    pub fn compose_prompt(&self, prompt: &str, extra_sections: &[&str]) -> String {
        let sections = self.snapshot.soft_constraints.prompt_sections.iter().map(String::as_str);
        discovery::compose_prompt(sections.chain(extra_sections.iter().copied()), prompt)
    }

    /// Returns the allocations and context of the session, as in its discovery file. Children are provisioned from the
    /// snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Writes the discovery file, and returns the values to start a program with.
    ///
    /// `None` is the default path: `.agent-context/resources.json` in the session's working directory. A session
    /// without a worktree shares the workspace with others, so its default file is in the state directory.
    ///
    /// Another path is relative to the same directory. It must be in a separate directory, which is hidden from Git:
    /// beside files of the repository, it would be a change of the repository. Links are not followed.
    pub fn runtime_injection(
        &self,
        discovery_file: Option<&Path>,
        base_env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<RuntimeInjection, Error> {
        let path = match discovery_file {
            None => self.default_file.path.clone(),
            Some(path) => self.checked(path)?,
        };
        self.locked("write the discovery file of", |context| {
            self.record(context)?.ok_or_else(|| Error::Released(self.snapshot.session_id.clone()))?;
            Ok(discovery::write_in(&self.default_file.anchor, &path, &self.snapshot.to_bytes())?)
        })?;
        let mut env = self.injected_env(base_env);
        env.insert("AGENT_DISCOVERY_FILE".to_owned(), path.to_string_lossy().into_owned());
        let working_directory = self.working_directory().to_owned();
        Ok(RuntimeInjection { working_directory, env, discovery_file: path })
    }

    /// Releases all resources, the last provisioned first.
    ///
    /// Continues after failures and reports all failures; another call tries the failed steps again. After a complete
    /// release, another call does nothing and succeeds.
    ///
    /// Work that would be lost is [`Error::WouldLose`], and nothing is changed. Such work is changes that are not
    /// committed, commits that no ref reaches, and active children. If other processes are at work in the session,
    /// nothing is changed either: [`Error::Occupied`].
    pub fn release(&self) -> Result<(), Error> {
        self.release_with(apply::Options::default())
    }

    /// Releases all resources, and discards unsaved work.
    ///
    /// Active children still refuse the release: the work of children does not belong to this session.
    pub fn release_discarding(&self) -> Result<(), Error> {
        self.release_with(Unsaved::Discard.into())
    }

    /// Releases all resources, after saving unsaved work, by the same code as `seedbed destroy --rescue`.
    ///
    /// `heard` is called for each piece of work once it is saved, before anything is released. The work stays saved if
    /// a later step fails. Work that cannot be saved is [`Error::Release`], or [`Error::WouldLose`] if that is known
    /// before, and nothing is released.
    ///
    /// ```no_run
    /// # fn end(session: &seedbed::orchestrator::Provisioned) -> Result<(), seedbed::orchestrator::Error> {
    /// session.release_rescuing(|saved| println!("{} is brought back by: {}", saved.reference, saved.command))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn release_rescuing(&self, heard: impl FnMut(RescuedWork) + Send) -> Result<(), Error> {
        let heard = Mutex::new(heard);
        self.release_and_report(Unsaved::Rescue.into(), &|event| {
            if let Event::Rescued { reference, command, missing, .. } = event.clone() {
                heard.lock().unwrap_or_else(PoisonError::into_inner)(RescuedWork {
                    reference,
                    command,
                    missing,
                });
            }
        })
    }

    /// Releases all resources. `options` decide about unsaved work and about processes at work in the session.
    ///
    /// ```no_run
    /// # use seedbed::{apply, orchestrator::{Error, Provisioned}};
    /// # fn end(session: &Provisioned) -> Result<(), Error> {
    /// let mut options = apply::Options::default();
    /// options.occupants = apply::Occupants::Stop(apply::STOP_PATIENCE);
    /// session.release_with(options)
    /// # }
    /// ```
    pub fn release_with(&self, options: apply::Options) -> Result<(), Error> {
        self.release_and_report(options, &|_| {})
    }

    fn release_and_report(
        &self,
        options: apply::Options,
        events: &(dyn Fn(&Event) + Sync),
    ) -> Result<(), Error> {
        if self.released.load(Ordering::Acquire) {
            return Ok(());
        }
        self.locked("release", |context| {
            let both = |event: &Event| {
                (context.events)(event);
                events(event);
            };
            let context = &context.with_events(&both);
            apply::recover(context, options).map_err(Error::from_release_error)?;
            if let Some(record) = self.record(context)? {
                let apply::Options { unsaved, occupants, .. } = options;
                let all = Destroy { unsaved, occupants, ..Destroy::default() };
                apply::destroy(context, &record, &all).map_err(Error::from_release_error)?;
            }
            Ok(())
        })?;
        self.released.store(true, Ordering::Release);
        Ok(())
    }

    /// Returns the session's record; `None` if the session was released, even if another process has provisioned it
    /// again.
    fn record(&self, context: &Context<'_>) -> Result<Option<Record>, Error> {
        Ok(context.swarm.applied()?.filter(|record| record.owner == self.owner))
    }

    fn locked<T>(&self, what: &str, act: impl FnOnce(&Context<'_>) -> Result<T, Error>) -> Result<T, Error> {
        self.shared.locked(&self.snapshot.workspace_root, &self.snapshot.session_id, what, act)
    }

    /// Returns the absolute path of a discovery file at a location that the caller requests.
    fn checked(&self, path: &Path) -> Result<PathBuf, Error> {
        let refused = |why: &str| Error::Discovery { path: path.to_owned(), why: why.to_owned() };
        if !path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir)) {
            return Err(refused("it has to be relative, without `..`"));
        }
        let file = host::absolute(&self.default_file.directory, path);
        let own = file.parent().filter(|directory| *directory != self.default_file.directory);
        let Some(own) = own else {
            return Err(refused("it must be in a directory of its own, such as `.agent-context`"));
        };
        let (root, below) = Root::toward(&self.default_file.anchor, own)?;
        match root.directory(&below)? {
            Some(directory) if !discovery::is_own_directory(&directory)? => {
                Err(refused("its directory contains other files"))
            }
            _ => Ok(file),
        }
    }
}

impl fmt::Debug for Provisioned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provisioned").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}
