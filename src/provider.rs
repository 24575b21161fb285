//! What a kind of resource is: the [`Provider`] trait and the [`Registry`]; each kind has a module of its own below.
//!
//! A provider has a pure half, which planning drives ([`Provider::questions`], [`Planner`]), and an effectful half,
//! which applying and releasing drive with one [`Task`] at a time.

pub mod external;
pub mod git_worktree;
pub mod markers;
pub mod port_range;
mod registry;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use markers::WORKSPACE_ROOT;
pub use registry::{AlreadyRegistered, Registry};

use crate::host::occupants::Area;
use crate::host::text::printable_lines;
use crate::host::{Host, files, process};
use crate::manifest::{Fault, Options, Place};
use crate::name::{SessionPath, Slug};
use crate::observe::{Observation, Question};
use crate::template;

/// The code that plans, provisions, inspects and releases one kind of resource.
pub trait Provider: Send + Sync {
    /// The name that manifests call it by.
    fn kind(&self) -> &str;

    /// The JSON schema of its options, an object; keys are kebab-case.
    fn options_schema(&self) -> Schema;

    /// The options that are in force: what the request says, over what a child takes along from `parent` (the options
    /// in force there, where it takes a share), over the manifest's defaults. Pure.
    fn options(&self, own: &Options, parent: Option<&Options>, defaults: &Options) -> Options;

    /// What has to be known of the host before it can be planned. Pure.
    fn questions(&self, options: &Options) -> Vec<Question>;

    /// What has to be known of the host before an allocation that is broken can be made again. Pure.
    fn questions_again(&self, _allocation: &Allocation) -> Vec<Question> {
        Vec::new()
    }

    /// The branch that an allocation works on, without `refs/heads/`. Pure.
    fn branch(&self, _allocation: &Allocation) -> Option<String> {
        None
    }

    /// The branch that outlasts the release of a lease, by an observation that answers [`Provider::questions_again`]. With
    /// no owner in it, what exists has outlasted a release that was made. Pure.
    fn outlasts(&self, _allocation: &Allocation, _observation: &Observation) -> Option<Outlasts> {
        None
    }

    /// Returns whether an allocation with these options in force is kept where `asked` are asked for. Pure.
    fn is_answered_by(&self, standing: &Options, asked: &Options) -> bool {
        standing == asked
    }

    /// Starts planning against one observation. Pure, as is everything that the planner does.
    fn planner<'o>(&'o self, observation: &'o Observation) -> Box<dyn Planner + 'o>;

    /// What an allocation contributes to its session's context. Follows from the allocation alone. Pure.
    fn context(&self, allocation: &Allocation) -> Context;

    /// What templates see of an allocation, and by which name: `worktree.*`, `port.*`. Follows from the allocation alone.
    /// Pure.
    fn names(&self, _allocation: &Allocation) -> Option<(&'static str, minijinja::Value)> {
        None
    }

    /// The directory that goes with an allocation, and with it everything inside, relative to the workspace root; `None`
    /// where there is none. Follows from the allocation alone. Pure.
    fn directory(&self, _allocation: &Allocation) -> Option<PathBuf> {
        None
    }

    /// Tells whether an allocation lies where planning would put it for a session of this scoped name; one read from a
    /// file may say anything. Pure.
    fn is_in_place(&self, allocation: &Allocation, scoped_name: &str) -> bool;

    /// What a reviewer should hear of an allocation on this very host, one line each; not part of the plan, whose
    /// bytes are the same on every machine. Pure.
    fn notices(&self, allocation: &Allocation, observation: &Observation) -> Vec<String>;

    /// Why an allocation that is not provisioned yet cannot be any more, one line each: the ref moved, a port was
    /// taken, a path appeared. Empty where it can. `replaced` is the allocation that is released before it: what that
    /// one has is not in the way. Pure.
    fn stale(
        &self,
        allocation: &Allocation,
        replaced: Option<&Allocation>,
        observation: &Observation,
    ) -> Vec<String>;

    /// The fields of its allocations that hold paths: relative to the workspace root in a plan, absolute in a
    /// discovery file.
    fn path_fields(&self) -> &'static [&'static str];

    /// Tells whether provisioning takes nothing but something that other runs may take first, at once: a port, not a
    /// directory. Claims of all sessions come before everything else, so that a run that is too late learns it before
    /// it has cost anything.
    fn is_claim(&self, _allocation: &Allocation) -> bool {
        false
    }

    /// What an allocation is made from that others of the same run may be made from too: those for which this is equal
    /// are filled in one call. `None` where it is made on its own. Pure.
    fn basis(&self, _allocation: &Allocation) -> Option<String> {
        None
    }

    /// Makes one allocation real, all but what [`Provider::fill`] and [`Provider::finish`] do. What any of the three
    /// leaves half-made on an error, [`Provider::release`] takes away.
    fn provision(&self, task: &Task<'_>) -> Result<(), Error>;

    /// Does what allocations of the same basis have in common once for all of them, after all of the run were
    /// provisioned and before any is finished. `tasks` are at least one, parents before children, and the first is the one that the
    /// plan says the others are made from. Everything that failed is returned, with its position in `tasks`.
    ///
    /// Runs on the threads of the run: what it does in parallel, it does with rayon.
    fn fill(&self, _tasks: &[Task<'_>]) -> Vec<(usize, Error)> {
        Vec::new()
    }

    /// Completes one allocation once all of the run are filled; from here on it is its session's own.
    fn finish(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Puts back what [`Condition::Mendable`] says is gone, without touching what stands.
    fn mend(&self, task: &Task<'_>) -> Result<(), Error> {
        self.provision(task)
    }

    /// Returns what a lease has from the workspace that has changed there since, one line each, and that
    /// [`Provider::refresh`] brings up to date. What its session has changed itself is none. Changes nothing.
    fn outdated(&self, _task: &Task<'_>) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Brings what a lease has from the workspace up to date, and returns what is left as it is because its session has
    /// changed it, one line each.
    fn refresh(&self, _task: &Task<'_>) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Looks whether a lease still is what was provisioned.
    fn inspect(&self, task: &Task<'_>) -> Result<Condition, Error>;

    /// Why nothing can be run in the directory that a lease gives its session, one line; `None` where it is what was
    /// provisioned. Asked before anything is run there.
    fn unusable(&self, _task: &Task<'_>) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// Tells whether what releasing works with is there and can be used: a program, say, that is not too old. Asked
    /// before the first release of a run, for one allocation of the kind, so that none is begun in vain.
    fn ready(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// What would be lost if the lease were released. Changes nothing.
    fn losses(&self, task: &Task<'_>) -> Result<Losses, Error>;

    /// Returns what [`Provider::losses`] would for a lease whose run was interrupted, except for what the run itself has put
    /// there, `setup` included. Changes nothing.
    ///
    /// Default: everything once the session was complete, nothing before.
    fn losses_since(&self, task: &Task<'_>, made: Made) -> Result<Losses, Error> {
        if matches!(made, Made::Completely(_)) { self.losses(task) } else { Ok(Losses::default()) }
    }

    /// Returns what [`Losses::obstacles`] would name, for a release that gives up all work. Changes nothing.
    fn obstacles(&self, _task: &Task<'_>) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Saves what [`Losses::work`] names, where it outlasts the lease, and says how to bring it back. Leaves the lease
    /// as it is. Idempotent: what has been saved already, and has not changed since, is not saved again.
    fn rescue(&self, task: &Task<'_>) -> Result<Rescue, Error> {
        Err(Error::Refused(format!(
            "what {} of {} holds cannot be saved elsewhere",
            self.kind(),
            task.session
        )))
    }

    /// Takes away what a rescue that was killed has left beside the lease. Idempotent.
    fn sweep(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Returns whether [`Provider::set_aside`] and [`Provider::give_way`] move leases of this kind aside, so that a run
    /// can bring them back exactly. Leases of other kinds stay where they are until the run is committed; one whose
    /// planned successor is the very same resource is released before that is provisioned, and provisioned again where
    /// the run is undone.
    fn moves_aside(&self) -> bool {
        false
    }

    /// Moves the lease from [`Location::Home`] to [`Location::Aside`], where only processes that use it already reach it.
    /// Idempotent, also after a kill half-way. Unsaved work is judged again after it.
    fn set_aside(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Gives up, for a lease that was set aside, the names that a new one may need: a branch, ports. Idempotent.
    fn give_way(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Undoes [`Provider::give_way`] and [`Provider::set_aside`], as far as they came: everything is as it was.
    /// Idempotent.
    fn bring_back(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Takes away whatever of the allocation exists at the task's location and is this swarm's. Idempotent: what is gone
    /// already is no error.
    fn release(&self, task: &Task<'_>) -> Result<(), Error>;

    /// Returns whether what lies at the allocation's place in the task's workspace carries the task's ownership marker,
    /// wherever it was made: so a workspace that was moved or copied is recognised. `false` where that cannot be found out.
    fn bears_mark(&self, _task: &Task<'_>) -> bool {
        false
    }

    /// Makes what [`Provider::bears_mark`] point to where it is now, after its workspace was moved. Idempotent; what does
    /// not bear the marker is left alone.
    fn rebind(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Gives what lies in a copy of a workspace to the task's swarm, whose ownership marker is another than `from`, that of
    /// the swarm it was copied of. Nothing outside the copy is touched. Returns the allocation that the copy has from here
    /// on; `None` where it has none, as of ports. Idempotent.
    fn adopt(&self, _task: &Task<'_>, _from: &str) -> Result<Option<Allocation>, Error> {
        Ok(None)
    }

    /// Returns what [`Provider::forget`] would lose. Changes nothing.
    fn kept(&self, _task: &Task<'_>) -> Result<Losses, Error> {
        Ok(Losses::default())
    }

    /// Removes what is kept of an allocation outside its workspace, which is gone. Idempotent. Default: releases it.
    fn forget(&self, task: &Task<'_>) -> Result<(), Error> {
        self.release(task)
    }

    /// Returns what may exist of the allocation at the task's location, one line each, for a user who removes it by hand;
    /// empty where nothing does. Changes nothing.
    fn remains(&self, task: &Task<'_>) -> Vec<String> {
        vec![allocation_line(task.allocation)]
    }

    /// Directories and ports of the allocation that processes may use: none may, where it is released. What cannot be found
    /// is left out.
    fn area(&self, _task: &Task<'_>) -> Area {
        Area::default()
    }

    /// The directories, absolute, where a killed run may have left a file half-written beside the allocation.
    fn debris(&self, _task: &Task<'_>) -> Result<Vec<PathBuf>, Error> {
        Ok(Vec::new())
    }
}

/// Plans the allocations of one kind for all sessions of one plan, in canonical order.
pub trait Planner {
    /// Counts an allocation that stands and stays as taken, before anything new is allocated. `parent` is the id of
    /// the session above.
    fn keep(&mut self, session: &str, parent: Option<&str>, allocation: &Allocation);

    /// Counts an allocation that stands as released before anything new is made.
    fn free(&mut self, allocation: &Allocation);

    /// Decides how an allocation that is gone or broken is made again at the same place, and returns what it is then: it
    /// may go on from what has come of it since. It was told by [`Planner::keep`].
    fn again(&mut self, _request: &Request<'_>, allocation: &Allocation) -> Result<Allocation, Vec<Fault>> {
        Ok(allocation.clone())
    }

    /// Allocates afresh.
    fn allocate(&mut self, request: &Request<'_>) -> Result<Planned, Vec<Fault>>;

    /// Allocates a share of the parent's allocation.
    fn sub_allocate(&mut self, request: &Request<'_>, parent: &Parent<'_>) -> Result<Planned, Vec<Fault>>;
}

/// What one session asks of one provider.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The session's id.
    pub session: &'a str,
    /// The session's scoped name, unique in the plan.
    pub scoped_name: &'a str,
    /// The swarm's name.
    pub swarm: &'a str,
    /// The session's place in the tree.
    pub path: &'a SessionPath,
    /// The session's number in the swarm.
    pub index: u32,
    /// Its number among the replicas of its table; `None` where the table has no `count`.
    pub replica: Option<u32>,
    /// Its slug, unique in the plan.
    pub slug: &'a Slug,
    /// The options in force, shared by all requests that come to the same.
    pub options: &'a Arc<Options>,
    /// Those of them that the request itself says.
    pub own: &'a Options,
    /// Where the request stands in the manifest; an option's place is `place.key(NAME)` where it is said there.
    pub place: &'a Place,
    /// How many children take a share of this.
    pub shares: u32,
}

impl Request<'_> {
    /// What templates in options may name: `swarm`, and of `session` its `id`, `path`, `name`, `index`, `replica` and
    /// `slug`.
    pub fn names(&self) -> minijinja::Value {
        let session =
            template::of_session(self.path, self.session, self.index, self.replica, self.slug, None);
        minijinja::Value::from_pairs([("swarm", minijinja::Value::from(self.swarm)), ("session", session)])
    }
}

/// The parent that a share is taken of.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// Its session id.
    pub session: &'a str,
    /// Its scoped name.
    pub scoped_name: &'a str,
    /// Its allocation of the same kind.
    pub allocation: &'a Allocation,
    /// The position of this child among those that take a share, 0-based.
    pub index: u32,
    /// How many children take one, at least 1.
    pub count: u32,
}

/// What a planner decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planned {
    /// As in [`Allocation::allocation`].
    pub allocation: Map<String, Value>,
    /// As in [`Allocation::within_parent`].
    pub within_parent: bool,
    /// As in [`Allocation::notes`].
    pub notes: Vec<String>,
    /// As in [`Allocation::external`].
    pub external: Option<external::Contribution>,
}

/// What planning decided for one resource of one session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Allocation {
    /// Which provider it is for.
    pub kind: String,
    /// The options in force when it was planned, as far as they are not the kind's own defaults; another apply keeps
    /// the lease while they stay the same.
    pub options: Map<String, Value>,
    /// The seed's hard constraint, and what provisioning needs beside it. Paths are relative to the workspace root.
    pub allocation: Map<String, Value>,
    /// Whether it was planned as a share of the parent's.
    #[serde(default)]
    pub shared: bool,
    /// Whether it lies inside the parent's allocation, and cannot outlive it.
    #[serde(default)]
    pub within_parent: bool,
    /// What a reviewer should know, one line each: a block passed over and why, a setting that will be changed.
    pub notes: Vec<String>,
    /// What plans and makes it, and what it contributes; absent for the kinds that seedbed brings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<external::Contribution>,
}

/// What an allocation contributes to its session. Strings may hold [`WORKSPACE_ROOT`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Sections of the prompt.
    pub prompt_sections: Vec<String>,
    /// Anything else.
    pub metadata: Map<String, Value>,
    /// Where the session works, relative to the workspace root; the last allocation that says so wins.
    pub working_directory: Option<PathBuf>,
}

/// Where a session finds its discovery file, relative to the directory that it works in. A provider of directories
/// keeps the place free.
pub const DISCOVERY_DIRECTORY: &str = ".agent-context";

/// The name of the file there that tells a session what it owns.
pub const DISCOVERY_FILE: &str = "resources.json";

/// One allocation to act on.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// What may be used.
    pub host: &'a Host,
    /// The workspace root, absolute.
    pub workspace: &'a Path,
    /// The ownership mark of the swarm: 32 hexadecimal digits, made once a swarm.
    pub owner: &'a str,
    /// The session's id.
    pub session: &'a str,
    /// Ids of the sessions above it, nearest first: those whose ports it has a share of.
    pub ancestors: &'a [&'a str],
    /// What to make real, look at, or take away.
    pub allocation: &'a Allocation,
    /// Location of the lease.
    pub location: Location,
    /// Handed to git children as their standard input, so that the swarm's lock outlives a killed seedbed for as
    /// long as they run; `None` where nothing is changed, and in tests.
    pub lock: Option<&'a std::fs::File>,
    /// Told by [`Provider::fill`] of each allocation as soon as it is filled.
    pub filled: Filled<'a>,
    /// What was found out for other allocations that are looked at in the same breath; `None` for one on its own.
    pub findings: Option<&'a Findings>,
}

/// Describes an allocation by its fields, in one line.
pub(crate) fn allocation_line(allocation: &Allocation) -> String {
    format!("{} {}", allocation.kind, Value::Object(allocation.allocation.clone()))
}

/// Location of a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Location {
    /// Where its session finds it.
    #[default]
    Home,
    /// Where [`Provider::set_aside`] moves it, beside a new lease of the same session.
    Aside,
}

impl Task<'_> {
    /// What `find` finds, or has found for another allocation that asked for `what`.
    pub(crate) fn found(
        &self,
        what: &str,
        find: impl FnOnce() -> Result<String, Error>,
    ) -> Result<String, Error> {
        let Some(findings) = self.findings else { return find() };
        let finding = {
            let mut findings = findings.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(findings.entry(what.to_owned()).or_default())
        };
        // Who comes second waits for what the first one finds.
        let mut finding = finding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*finding {
            return Ok(found.clone());
        }
        let found = find()?;
        *finding = Some(found.clone());
        Ok(found)
    }
}

/// What holds for many allocations and is found out once for all that are looked at together.
#[derive(Debug, Default)]
pub struct Findings(Mutex<BTreeMap<String, Arc<Mutex<Option<String>>>>>);

/// Hears that one allocation is filled: a call that fills many takes long, and somebody watches.
#[derive(Clone, Copy, Default)]
pub struct Filled<'a>(Option<&'a (dyn Fn() + Sync)>);

impl<'a> Filled<'a> {
    /// `hears` may be called more than once.
    pub fn new(hears: &'a (dyn Fn() + Sync)) -> Self {
        Self(Some(hears))
    }

    /// The allocation is filled.
    pub fn tell(self) {
        if let Some(hears) = self.0 {
            hears();
        }
    }
}

impl std::fmt::Debug for Filled<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Filled")
    }
}

/// What releasing a lease would lose, one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Work that is saved nowhere else, and that [`Provider::rescue`] can save.
    pub work: Vec<String>,
    /// Work that is saved nowhere else, and that no rescue saves.
    pub beyond_rescue: Vec<String>,
    /// Why it cannot be found out what would be lost, and what to do. Nothing is released then, unless its work is given up.
    pub unknown: Vec<String>,
    /// What goes along and is no reason to keep the lease: files that git ignores, commits that were rewritten.
    pub passing: Vec<String>,
    /// Things inside that are not the session's, and things that cannot be removed: a mount, a worktree that another
    /// program registered. They keep the lease from being released even where its work is given up.
    pub obstacles: Vec<String>,
}

/// Progress that an interrupted run has made with the leases of a session. Times are those that the kernel gives to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// They were being filled.
    Partly,
    /// They were filled.
    Filled {
        /// When that had been done.
        at: SystemTime,
        /// When the run, which was finishing them, was alive at the latest.
        alive: SystemTime,
    },
    /// The commands of `setup` were at work.
    SettingUp {
        /// When they began.
        at: SystemTime,
        /// When they were at work at the latest, as far as that is known.
        alive: SystemTime,
    },
    /// They were complete at this time, and set up.
    Completely(SystemTime),
}

/// A branch that outlasts a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlasts {
    /// Its name, without `refs/heads/`.
    pub branch: String,
    /// The commit that it names.
    pub commit: String,
    /// The number of commits that it has beyond the one that the lease began at.
    pub commits: usize,
}

/// Work that was saved before its lease was released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescue {
    /// Where: the full name of a ref.
    pub reference: String,
    /// The shell command that brings it back, in a new place; nothing that stands is touched by it.
    pub command: String,
    /// What the command does not bring back as it was, one line each.
    pub missing: Vec<String>,
}

/// How a lease was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// As it was provisioned.
    Sound,
    /// Still there, but something of ours about it is gone, which [`Provider::mend`] puts back; with what, one line.
    Mendable(String),
    /// Gone or broken, with what is wrong, one line.
    Broken(String),
    /// Not to be found out, with why and what to do, one line: a server does not run. It is neither repaired nor released.
    Unknown(String),
}

/// Why a step of a provider failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An outside program failed.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A file could not be touched.
    #[error(transparent)]
    File(#[from] files::Error),
    /// Somebody else has taken what planning found free; another plan may find something else.
    #[error("{0}")]
    Taken(String),
    /// Something that is not this swarm's stands in the way, or the allocation cannot be read.
    #[error("{0}")]
    Refused(String),
    /// The provider panicked, with this message: a bug of whoever wrote it.
    #[error("a bug: it panicked: {0}")]
    Panicked(String),
}

/// Runs one step of a provider. A panic in it, on whichever thread of its own, is an error like any other: the run is
/// rolled back, or goes on past it.
pub(crate) fn caught<T>(step: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // What the step has broken of its own is the provider's; seedbed's own mutexes are read past a poisoning.
    panic::catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
        Err(Error::Panicked(printable_lines(text)))
    })
}

/// Lays `own` over what is taken along from `parent` over `defaults`, and spells out what none of them says, so that
/// two ways of saying the same are equal. `own_only` are the keys that a child does not take along.
///
/// Options that do not fit `T` stay as they are: planning reports them.
pub(crate) fn options_in_force<T: Serialize + DeserializeOwned>(
    own: &Options,
    parent: Option<&Options>,
    defaults: &Options,
    own_only: &[&str],
) -> Options {
    let mut options = defaults.clone();
    let taken_along = parent.into_iter().flatten().filter(|(key, _)| !own_only.contains(&key.as_str()));
    options.extend(taken_along.chain(own).map(|(key, value)| (key.clone(), value.clone())));
    match T::deserialize(&options).map(serde_json::to_value) {
        Ok(Ok(Value::Object(spelled_out))) => spelled_out,
        _ => options,
    }
}

/// Options as a planner reads them. Thousands of sessions ask with the same, which are then read once.
pub(crate) struct Known<T>(Vec<(Arc<Options>, Rc<T>)>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: DeserializeOwned> Known<T> {
    /// Replicas of a table and of its children ask in turn; a search through more would cost what reading does.
    const KEPT: usize = 8;

    /// The options as `T`, or why they are none.
    pub(crate) fn read(&mut self, options: &Arc<Options>) -> Result<Rc<T>, serde_json::Error> {
        // Mostly they are not only alike, but the very same.
        let same = self.0.iter().find(|(known, _)| Arc::ptr_eq(known, options));
        if let Some((_, known)) = same.or_else(|| self.0.iter().find(|(known, _)| known == options)) {
            return Ok(Rc::clone(known));
        }
        let read = Rc::new(T::deserialize(&**options)?);
        if self.0.len() == Self::KEPT {
            self.0.remove(0);
        }
        self.0.push((Arc::clone(options), Rc::clone(&read)));
        Ok(read)
    }
}

/// Tells whether `path` of a plan is the workspace itself or a directory above it.
pub(crate) fn holds_the_workspace(workspace: &Path, path: &Path) -> bool {
    workspace.starts_with(crate::host::absolute(workspace, path))
}

/// Tells whether a path of a plan leads into a git directory.
pub(crate) fn in_git(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().eq_ignore_ascii_case(".git"))
}

/// How often a step is tried again that loses against somebody removing an empty directory under it: a foreign prune
/// the empty `worktrees`, another session's release the directory of worktrees or of locks. Each try is microseconds.
const TRIES: usize = 100;

/// Tries a step again for as long as it fails because something is not there.
pub(crate) fn again_while_missing<T>(mut step: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 1..TRIES {
        match step() {
            Err(Error::File(files::Error::Io { source, .. })) if source.kind() == ErrorKind::NotFound => {}
            result => return result,
        }
    }
    step()
}
