//! A session that stands: what it is told, and its release.

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

/// A session that stands.
///
/// Dropping it releases nothing: the session outlives the process, and [`super::Orchestrator::standing`] finds it.
pub struct Provisioned {
    shared: Arc<Shared>,
    snapshot: Snapshot,
    owner: String,
    default_file: DiscoveryFile,
    released: AtomicBool,
}

/// Everything that is needed to start a program in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuntimeInjection {
    /// Where to start it.
    pub working_directory: PathBuf,
    /// Its whole environment, with `AGENT_DISCOVERY_FILE`.
    pub env: BTreeMap<String, String>,
    /// The discovery file, absolute.
    pub discovery_file: PathBuf,
}

/// Work that was saved before its session was released.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// The full name of the ref that has it, e.g. `refs/seedbed/rescue/…`.
    pub reference: String,
    /// The shell command that brings it back, in a new place.
    pub command: String,
    /// What the command does not bring back as it was, one line each.
    pub missing: Vec<String>,
}

/// Where a session's discovery file is by default.
struct DiscoveryFile {
    path: PathBuf,
    /// The directory that other paths are relative to: the session's own, and nobody else's.
    directory: PathBuf,
    /// What it is reached from without following links.
    anchor: PathBuf,
}

impl Provisioned {
    pub(super) fn new(shared: Arc<Shared>, swarm: &Swarm<'_>, record: &Record, session: &Session) -> Self {
        let snapshot = discovery::snapshot(record, session, &shared.registry, swarm.workspace());
        let path = discovery::file(swarm, session);
        let (directory, anchor) = if session.discovery_file.is_some() {
            (snapshot.working_directory.clone(), swarm.workspace().to_owned())
        } else {
            // Without a directory of its own it would work, and be told, where every other such session is.
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

    /// Where the session works, absolute: in its worktree, or without one in the workspace root.
    pub fn working_directory(&self) -> &Path {
        &self.snapshot.working_directory
    }

    /// `base` with the session's variables over it.
    pub fn injected_env(&self, base: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
        let own = &self.snapshot.soft_constraints.env;
        base.into_iter().chain(own.iter().map(|(name, value)| (name.clone(), value.clone()))).collect()
    }

    /// The prompt with the session's sections and `extra_sections` before it; the prompt alone where there are none.
    pub fn compose_prompt(&self, prompt: &str, extra_sections: &[&str]) -> String {
        let sections = self.snapshot.soft_constraints.prompt_sections.iter().map(String::as_str);
        discovery::compose_prompt(sections.chain(extra_sections.iter().copied()), prompt)
    }

    /// What the session owns, as its discovery file says it; children are provisioned from it.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Writes the discovery file and tells what to start a program with.
    ///
    /// `None` is the default place: `.agent-context/resources.json` in the session's working directory, and in the
    /// state directory for a session that has no worktree, since it shares the workspace with others. Another path is
    /// relative to the same directory, and lies in a directory of its own, which is hidden from git: next to files of
    /// the repository it would be a change to it. Links are not followed.
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

    /// Releases everything, the last provisioned first.
    ///
    /// Goes on past what fails and reports all of it; another call tries that again. Once everything is gone, and
    /// where it was gone before, there is nothing to do and no error. Work that would be lost is
    /// [`Error::WouldLose`], and nothing is touched: changes that are not committed, commits that no ref reaches,
    /// children that stand. Neither is anything where other processes are at work in the session: [`Error::Occupied`].
    pub fn release(&self) -> Result<(), Error> {
        self.release_with(apply::Options::default())
    }

    /// Releases everything, and gives up work that is not saved. Children that stand are refused all the same: their
    /// work is not this session's to give up.
    pub fn release_discarding(&self) -> Result<(), Error> {
        self.release_with(Unsaved::Discard.into())
    }

    /// Releases everything, once work that is not saved is: what `seedbed destroy --rescue` does, by the same code.
    ///
    /// `heard` is told of each piece of work once it is saved, before anything is released; that stays so whatever fails
    /// afterwards. Work that cannot be saved is [`Error::Release`], or [`Error::WouldLose`] where that is known before,
    /// and nothing is released.
    ///
    /// ```no_run
    /// # fn end(session: &seedbed::orchestrator::Provisioned) -> Result<(), seedbed::orchestrator::Error> {
    /// session.release_rescuing(|saved| println!("{} is brought back by: {}", saved.reference, saved.command))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn release_rescuing(&self, heard: impl FnMut(Saved) + Send) -> Result<(), Error> {
        let heard = Mutex::new(heard);
        self.release_and_tell(Unsaved::Rescue.into(), &|event| {
            if let Event::Rescued { reference, command, missing, .. } = event.clone() {
                heard.lock().unwrap_or_else(PoisonError::into_inner)(Saved { reference, command, missing });
            }
        })
    }

    /// Releases everything, and does with unsaved work and with processes at work in the session what `options` say.
    ///
    /// ```no_run
    /// # use seedbed::{apply, orchestrator::{Error, Provisioned}};
    /// # fn end(session: &Provisioned) -> Result<(), Error> {
    /// let occupants = apply::Occupants::Stop(apply::STOP_PATIENCE);
    /// let mut options = apply::Options::default();
    /// options.occupants = occupants;
    /// session.release_with(options)
    /// # }
    /// ```
    pub fn release_with(&self, options: apply::Options) -> Result<(), Error> {
        self.release_and_tell(options, &|_| {})
    }

    fn release_and_tell(
        &self,
        options: apply::Options,
        events: &(dyn Fn(&Event) + Sync),
    ) -> Result<(), Error> {
        if self.released.load(Ordering::Acquire) {
            return Ok(());
        }
        self.locked("release", |context| {
            let context = &Context { events, ..*context };
            apply::recover(context, options).map_err(Error::of_release)?;
            if let Some(record) = self.record(context)? {
                let apply::Options { unsaved, occupants, .. } = options;
                let all = Destroy { unsaved, occupants, ..Destroy::default() };
                apply::destroy(context, &record, &all).map_err(Error::of_release)?;
            }
            Ok(())
        })?;
        self.released.store(true, Ordering::Release);
        Ok(())
    }

    /// The session's record, unless it was released, and perhaps provisioned anew by somebody else.
    fn record(&self, context: &Context<'_>) -> Result<Option<Record>, Error> {
        Ok(context.swarm.standing()?.filter(|record| record.owner == self.owner))
    }

    fn locked<T>(&self, what: &str, act: impl FnOnce(&Context<'_>) -> Result<T, Error>) -> Result<T, Error> {
        self.shared.locked(&self.snapshot.workspace_root, &self.snapshot.session_id, what, act)
    }

    /// The absolute path of a discovery file that the caller wants elsewhere.
    fn checked(&self, path: &Path) -> Result<PathBuf, Error> {
        let refused = |why: &str| Error::Discovery { path: path.to_owned(), why: why.to_owned() };
        if !path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir)) {
            return Err(refused("it has to be relative, without `..`"));
        }
        let file = host::absolute(&self.default_file.directory, path);
        let own = file.parent().filter(|directory| *directory != self.default_file.directory);
        let Some(own) = own else {
            return Err(refused("it has to lie in a directory of its own, such as `.agent-context`"));
        };
        let (root, below) = Root::toward(&self.default_file.anchor, own)?;
        match root.directory(&below)? {
            Some(directory) if !discovery::is_own_directory(&directory)? => {
                Err(refused("the directory that it would lie in holds other files"))
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
