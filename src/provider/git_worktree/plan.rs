//! Decides where each worktree lies, at which commit, and what of it is checked out. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{Checkout, KIND, Layout, Options, Registration, Worktree, branch, overlay};
use crate::manifest::rule::{self, Rule};
use crate::manifest::{self, Fault, Place};
use crate::observe::{Directory, Observation, Question, Repository, TreeEntry, UnknownRef};
use crate::provider::{
    Allocation, Context, DISCOVERY_DIRECTORY, Known, Parent, Planned, Planner, Request, WORKSPACE_ROOT,
    holds_the_workspace,
};
use crate::template;

/// The longest path of a worktree, in bytes: git was measured to die near 4070, and files lie below it.
const PATH_MAX: usize = 4000;

pub(super) fn questions(options: &manifest::Options) -> Vec<Question> {
    let Ok(options) = Options::deserialize(options) else {
        return Vec::new();
    };
    let target = normalize_target_path(options.target_path.as_deref().unwrap_or_default()).ok().flatten();
    let discovery = match &target {
        Some(target) => format!("{target}/{DISCOVERY_DIRECTORY}"),
        None => DISCOVERY_DIRECTORY.to_owned(),
    };
    let tree = |path, wanted| Question::Tree { base_ref: options.base_ref.clone(), path, wanted };
    let mut questions =
        vec![Question::Directory { path: options.root_directory.clone() }, tree(discovery, false)];
    questions.extend(target.map(|target| tree(target, true)));
    if options.layout == Layout::Nested {
        questions.push(tree(top_of(&nested_root(Path::new(""), "")), false));
    }
    if options.branch.is_some() {
        questions.push(Question::Branches);
    }
    if options.checkout == Checkout::Overlay {
        questions.push(Question::Overlays);
    }
    questions.push(Question::Commit { base_ref: options.base_ref });
    questions
}

/// Decides the worktrees of one plan.
pub(super) struct Worktrees<'o> {
    observation: &'o Observation,
    options: Known<Options>,
    /// What existed before and will not exist any more when this plan's worktrees are made.
    freed: BTreeSet<PathBuf>,
    freed_entries: BTreeSet<String>,
    freed_branches: BTreeSet<String>,
    /// Branches of this plan.
    branches: BTreeSet<String>,
}

impl<'o> Worktrees<'o> {
    pub(super) fn new(observation: &'o Observation) -> Self {
        Self {
            observation,
            options: Known::default(),
            freed: BTreeSet::new(),
            freed_entries: BTreeSet::new(),
            freed_branches: BTreeSet::new(),
            branches: BTreeSet::new(),
        }
    }

    /// Plans a worktree in `root`; every fault of the request, not just the first.
    fn worktree(
        &mut self,
        request: &Request<'_>,
        options: &Options,
        root: PathBuf,
    ) -> Result<Planned, Vec<Fault>> {
        let place = request.place;
        let repository = match &self.observation.repository {
            Some(Ok(repository)) => repository,
            Some(Err(why)) => {
                return Err(vec![fault(rule::NO_REPOSITORY, place, why, "needs a git repository", None)]);
            }
            None => {
                return Err(vec![fault(
                    rule::NO_REPOSITORY,
                    place,
                    "the repository was not looked at",
                    "here",
                    None,
                )]);
            }
        };
        let mut faults = Vec::new();
        let branch = self.branch(repository, options, request).unwrap_or_else(|found| {
            faults.extend(found);
            None
        });
        let mut check = |result: Result<(), Fault>| faults.extend(result.err());

        let target = normalize_target_path(options.target_path.as_deref().unwrap_or_default());
        let target = target.unwrap_or_else(|why| {
            let help = "write a directory of the repository: `services/api`".to_owned();
            check(Err(fault(
                rule::TARGET_PATH,
                &place.key("target-path"),
                &why,
                "leads out of it",
                Some(help),
            )));
            None
        });
        let commit = match self.observation.commits.get(&options.base_ref) {
            Some(Ok(commit)) => {
                check(self.check_target(options, target.as_deref(), place));
                check(self.check_discovery(options, target.as_deref(), place));
                commit.clone()
            }
            unknown => {
                let unknown = unknown.and_then(|unknown| unknown.as_ref().err());
                check(Err(unknown_ref(&options.base_ref, unknown, place)));
                String::new()
            }
        };
        let path = root.join(request.scoped_name);
        check(self.check_path(repository, &root, &path, request));
        check(self.check_overlay(options, place));
        for (key, globs) in [("copy", &options.copy), ("link", &options.link)] {
            for (index, glob) in globs.iter().enumerate() {
                check(check_glob(glob, &place.key(key).index(index)));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }

        let worktree = Worktree {
            repo_root: way_up(&self.observation.workspace, &repository.root),
            worktree_root: root,
            worktree_path: path,
            base_ref: options.base_ref.clone(),
            target_path: target,
            commit,
            branch,
            entry: request.scoped_name.to_owned(),
            checkout: options.checkout,
            registration: match repository.registration {
                Ok(()) => Registration::Rename,
                Err(_) => Registration::Git,
            },
            copy: options.copy.clone(),
            link: options.link.clone(),
            git_hooks: options.git_hooks,
        };
        let Ok(Value::Object(fields)) = serde_json::to_value(&worktree) else {
            unreachable!("a worktree of plain fields with UTF-8 paths is a JSON object")
        };
        Ok(Planned { allocation: fields, ..Planned::default() })
    }

    fn check_target(&self, options: &Options, target: Option<&str>, place: &Place) -> Result<(), Fault> {
        let Some(target) = target else { return Ok(()) };
        let place = place.key("target-path");
        let what = match self.observation.trees.get(&(options.base_ref.clone(), target.to_owned())) {
            Some(TreeEntry::Directory) => return Ok(()),
            Some(TreeEntry::Missing { near }) => {
                let message = format!("`{target}` does not exist in `{}`", options.base_ref);
                let (label, help) = meant(near, "no such directory in that commit");
                let help = help.unwrap_or_else(|| {
                    format!(
                        "write a directory of the commit; `git ls-tree -d {}` lists them",
                        options.base_ref
                    )
                });
                return Err(fault(rule::TARGET_PATH, &place, &message, &label, Some(help)));
            }
            Some(TreeEntry::File) => "a file",
            Some(TreeEntry::Link) => "a symbolic link",
            Some(TreeEntry::Submodule) => "a submodule",
            None => "unknown",
        };
        let message = format!("`{target}` is {what} in `{}`, not a directory", options.base_ref);
        Err(fault(rule::TARGET_PATH, &place, &message, "has to be a directory", None))
    }

    /// A tracked discovery path would be overwritten, or as a link be written through.
    fn check_discovery(&self, options: &Options, target: Option<&str>, place: &Place) -> Result<(), Fault> {
        let path = match target {
            Some(target) => format!("{target}/{DISCOVERY_DIRECTORY}"),
            None => DISCOVERY_DIRECTORY.to_owned(),
        };
        self.check_untracked(options, &path, "where every session finds its discovery file", place)
    }

    fn check_overlay(&self, options: &Options, place: &Place) -> Result<(), Fault> {
        let Some(Err(why)) =
            self.observation.overlays.as_ref().filter(|_| options.checkout == Checkout::Overlay)
        else {
            return Ok(());
        };
        let message = format!("overlays cannot be mounted in the state directory of this host: {why}");
        let help = "use `checkout = \"auto\"`; overlays need Linux, root (or a user namespace of one's own), and a state \
                    directory (SEEDBED_STATE_DIR) on a file system such as ext4, xfs or tmpfs, not on an overlay itself";
        Err(fault(rule::OVERLAY, &place.key("checkout"), &message, "would be mounted", Some(help.to_owned())))
    }

    fn check_untracked(&self, options: &Options, path: &str, role: &str, place: &Place) -> Result<(), Fault> {
        let what = match self.observation.trees.get(&(options.base_ref.clone(), path.to_owned())) {
            None | Some(TreeEntry::Missing { .. }) => return Ok(()),
            Some(TreeEntry::Directory) => "as a directory",
            Some(TreeEntry::File) => "as a file",
            Some(TreeEntry::Link) => "as a symbolic link",
            Some(TreeEntry::Submodule) => "as a submodule",
        };
        Err(fault(
            rule::TRACKED_PATH,
            place,
            &format!("`{}` tracks `{path}` {what}, {role}", options.base_ref),
            "checks out that commit",
            Some(format!(
                "remove it from the repository (`git rm -r --cached {path}`), or use another `base-ref`"
            )),
        ))
    }

    fn check_path(
        &self,
        repository: &Repository,
        root: &Path,
        path: &Path,
        request: &Request<'_>,
    ) -> Result<(), Fault> {
        let place = || request.place.key("root-directory");
        if holds_the_workspace(&self.observation.workspace, root) {
            let message = "worktrees need a directory of their own, which git can be kept from seeing";
            let help = "name one below the workspace, such as `.ai_ops/worktrees`, or beside it".to_owned();
            return Err(fault(
                rule::ROOT_DIRECTORY,
                &place(),
                message,
                "is the workspace or above it",
                Some(help),
            ));
        }
        let way_back = root.components().skip_while(|part| *part == Component::ParentDir);
        if way_back.clone().any(|part| part == Component::ParentDir) {
            let message = format!("`{}` goes back on its way", root.display());
            return Err(fault(
                rule::ROOT_DIRECTORY,
                &place(),
                &message,
                "has `..` in the middle",
                Some("write where it leads".to_owned()),
            ));
        }
        let leads = |component: &Path, what: &str| {
            let message =
                format!("`{}` is {what}: worktrees would be made somewhere else", component.display());
            let help = "remove it, or name another `root-directory`".to_owned();
            Err(fault(rule::ROOT_DIRECTORY, &place(), &message, "leads there", Some(help)))
        };
        match self.observation.directories.get(root) {
            Some(Directory::Link(component)) => return leads(component, "a symbolic link"),
            Some(Directory::NotADirectory(component)) => return leads(component, "not a directory"),
            Some(Directory::Unreadable(why)) => {
                return Err(fault(
                    rule::ROOT_DIRECTORY,
                    &place(),
                    &format!("`{}` cannot be read: {why}", root.display()),
                    "here",
                    None,
                ));
            }
            Some(Directory::Listed(names))
                if names.contains(request.scoped_name) && !self.freed.contains(path) =>
            {
                let message = format!("`{}` exists already and is not this swarm's", path.display());
                let help = "move it away, or remove it if nothing in it is needed".to_owned();
                return Err(fault(
                    rule::PATH_TAKEN,
                    &place(),
                    &message,
                    "where the worktree would be made",
                    Some(help),
                ));
            }
            _ => {}
        }
        let entry = request.scoped_name;
        if repository.worktrees.contains(entry) && !self.freed_entries.contains(entry) {
            let message =
                format!("the repository has a worktree called `{entry}` already that is not this swarm's");
            let help =
                "`git worktree list` shows where it is; `git worktree remove` takes it away".to_owned();
            return Err(fault(rule::PATH_TAKEN, request.place, &message, "would have that name", Some(help)));
        }
        let length = self.observation.workspace.join(path).as_os_str().len();
        if length > PATH_MAX {
            let message = format!("the worktree's path would have {length} bytes, more than {PATH_MAX}");
            return Err(fault(rule::PATH_TOO_LONG, &place(), &message, "too deep", None));
        }
        Ok(())
    }

    fn branch(
        &mut self,
        repository: &Repository,
        options: &Options,
        request: &Request<'_>,
    ) -> Result<Option<String>, Vec<Fault>> {
        let Some(source) = &options.branch else { return Ok(None) };
        let place = request.place.key("branch");
        let branch = template::render(source, request.names)
            .map_err(|problems| problems.into_iter().map(|problem| problem.at(&place)).collect::<Vec<_>>())?;
        let refused = |message: String, label: &str, help: String| {
            Err(vec![fault(rule::BRANCH, &place, &message, label, Some(help))])
        };
        if !branch::is_name(&branch) {
            return refused(
                format!("`{}` is no name for a branch", branch.escape_debug()),
                "git would refuse it",
                "git takes no blanks, no `~^:?*[\\`, no `..`, no part that begins with `.` or ends with `.lock`"
                    .to_owned(),
            );
        }
        if let Some(other) = branch::in_the_way(&self.branches, &branch) {
            return refused(
                format!("branch `{branch}` of `{}` meets `{other}` of another session", request.session),
                "not one branch a session",
                "tell them apart by `{{ session.name }}` or `{{ session.index }}`".to_owned(),
            );
        }
        if let Some(other) = branch::in_the_way(&repository.branches, &branch)
            && !self.freed_branches.contains(other)
        {
            return refused(
                format!("branch `{branch}` of `{}` cannot be created: `{other}` exists", request.session),
                "exists already",
                format!("choose another name, or `git branch -d {other}` if it is no longer needed"),
            );
        }
        self.branches.insert(branch.clone());
        Ok(Some(branch))
    }

    fn options(&mut self, request: &Request<'_>) -> Result<Rc<Options>, Vec<Fault>> {
        self.options.read(request.options).map_err(|error| {
            let message = format!("the options of `{KIND}` cannot be read: {error}");
            vec![fault(rule::BROKEN_KIND, request.place, &message, "here", None)]
        })
    }
}

impl Planner for Worktrees<'_> {
    fn keep(&mut self, _session: &str, _parent: Option<&str>, allocation: &Allocation) {
        self.branches.extend(Worktree::of(allocation).and_then(|worktree| worktree.branch));
    }

    fn free(&mut self, allocation: &Allocation) {
        if let Some(worktree) = Worktree::of(allocation) {
            self.freed.insert(worktree.worktree_path);
            self.freed_entries.insert(worktree.entry);
            self.freed_branches.extend(worktree.branch);
        }
    }

    fn allocate(&mut self, request: &Request<'_>) -> Result<Planned, Vec<Fault>> {
        let options = self.options(request)?;
        let root = options.root_directory.clone();
        self.worktree(request, &options, root)
    }

    fn sub_allocate(&mut self, request: &Request<'_>, parent: &Parent<'_>) -> Result<Planned, Vec<Fault>> {
        let options = self.options(request)?;
        if options.layout == Layout::Flat {
            return self.allocate(request);
        }
        let of_parent = Worktree::of(parent.allocation);
        let is_mount = of_parent.as_ref().is_some_and(overlay::is_wanted);
        if is_mount || options.checkout == Checkout::Overlay {
            let message = "worktrees that are mounts do not lie inside one another";
            let help = "use `layout = \"flat\"`, or another `checkout`".to_owned();
            return Err(vec![fault(
                rule::OVERLAY,
                &request.place.key("layout"),
                message,
                "would be inside",
                Some(help),
            )]);
        }
        let of_parent = of_parent.ok_or_else(|| {
            vec![fault(
                rule::BROKEN_KIND,
                request.place,
                "the parent's worktree cannot be read from its allocation",
                "here",
                None,
            )]
        })?;
        let root = nested_root(&of_parent.worktree_path, parent.scoped_name);
        let top = top_of(&nested_root(Path::new(""), ""));
        self.check_untracked(&options, &top, "which the worktrees of children lie in", request.place)
            .map_err(|fault| vec![fault])?;
        let planned = self.worktree(request, &options, root)?;
        Ok(Planned { within_parent: true, ..planned })
    }
}

/// The commit and what of it is checked out, where the files may be copied from another worktree of the same; `None`
/// where git is to check them out. All else that a checkout depends on is the repository's.
pub(super) fn basis(allocation: &Allocation) -> Option<String> {
    let way = field(allocation, "checkout").filter(|way| *way != "git")?;
    let target = field(allocation, "targetPath").unwrap_or_default();
    Some(format!("{way} {} {target}", field(allocation, "commit")?))
}

/// A text of an allocation, read where it is: what runs once a session takes none of it apart.
fn field<'a>(allocation: &'a Allocation, name: &str) -> Option<&'a str> {
    allocation.allocation.get(name).and_then(Value::as_str)
}

/// What a reviewer should hear of a worktree in this very repository.
pub(super) fn notices(allocation: &Allocation, observation: &Observation) -> Vec<String> {
    let mut notices = Vec::new();
    if let Some(Ok(repository)) = &observation.repository {
        if field(allocation, "targetPath").is_some() && !repository.worktree_config {
            notices.push(
                "`extensions.worktreeConfig` will be set in the repository's shared config, which sparse worktrees \
                 need; it is taken back with the last of them"
                    .to_owned(),
            );
        }
        if field(allocation, "checkout") == Some("overlay") {
            notices.push(
                "worktrees with `checkout = \"overlay\"` are mounts: after a reboot, `seedbed apply` mounts them again, \
                 with what was written in them"
                    .to_owned(),
            );
        }
        if let Err(why) = &repository.registration {
            notices.push(format!("`git worktree add` registers the worktrees, one after another: {why}"));
        }
    }
    notices
}

/// What has come in the way of a planned worktree since.
pub(super) fn stale(allocation: &Allocation, observation: &Observation) -> Vec<String> {
    let Some(worktree) = Worktree::of(allocation) else {
        return vec!["the allocation cannot be read".to_owned()];
    };
    let mut stale = Vec::new();
    match observation.commits.get(&worktree.base_ref) {
        Some(Ok(commit)) if *commit == worktree.commit => {}
        Some(Ok(commit)) => stale
            .push(format!("`{}` has moved from {:.10} to {commit:.10}", worktree.base_ref, worktree.commit)),
        _ => stale.push(format!("`{}` names no commit any more", worktree.base_ref)),
    }
    let name = worktree.worktree_path.file_name().map(|name| name.to_string_lossy().into_owned());
    match observation.directories.get(&worktree.worktree_root) {
        Some(Directory::Listed(names)) if name.is_some_and(|name| names.contains(&name)) => {
            stale.push(format!("`{}` exists", worktree.worktree_path.display()));
        }
        Some(Directory::Link(component) | Directory::NotADirectory(component)) => {
            stale.push(format!("`{}` is not a directory", component.display()));
        }
        _ => {}
    }
    if let (true, Some(Err(why))) = (overlay::is_wanted(&worktree), &observation.overlays) {
        stale.push(format!("overlays cannot be mounted any more: {why}"));
    }
    match &observation.repository {
        Some(Ok(repository)) => {
            if repository.worktrees.contains(&worktree.entry) {
                stale.push(format!("the repository has a worktree called `{}`", worktree.entry));
            }
            let in_the_way =
                worktree.branch.as_ref().and_then(|branch| branch::in_the_way(&repository.branches, branch));
            stale.extend(in_the_way.map(|branch| format!("branch `{branch}` exists")));
        }
        Some(Err(why)) => stale.push(why.clone()),
        None => {}
    }
    stale
}

/// The seed's `normalizeWorktreeTargetPath`: slashes forward, parts trimmed, empty parts and `.` dropped; `None` where
/// nothing is left. Absolute paths, drive letters and `..` are errors, in words for the user.
pub fn normalize_target_path(value: &str) -> Result<Option<String>, String> {
    let value = value.trim().replace('\\', "/");
    let mut head = value.bytes();
    let drive = head.next().is_some_and(|b| b.is_ascii_alphabetic())
        && head.next() == Some(b':')
        && head.next() == Some(b'/');
    if value.starts_with('/') || drive {
        return Err("`target-path` must be a relative path within the repository".to_owned());
    }
    let parts: Vec<_> =
        value.split('/').map(str::trim).filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err("`target-path` must not contain `..`".to_owned());
    }
    Ok((!parts.is_empty()).then(|| parts.join("/")))
}

/// The seed's soft context; `None` for an allocation that is not one that planning made.
pub(super) fn context(allocation: &Allocation) -> Option<Context> {
    let worktree_path = field(allocation, "worktreePath")?;
    let path = absolute(Path::new(worktree_path));
    let names = [
        ("path", Some(path.as_str())),
        ("commit", Some(field(allocation, "commit")?)),
        ("branch", field(allocation, "branch")),
    ];
    let names = vec![("worktree", minijinja::Value::from_pairs(names))];
    let base_ref = field(allocation, "baseRef")?.to_owned();
    let mut prompt_sections = vec![format!("Git worktree: {path}"), format!("Worktree base ref: {base_ref}")];
    let mut metadata = Map::from_iter([
        ("git_worktree_path".to_owned(), Value::from(path.clone())),
        ("git_worktree_base_ref".to_owned(), Value::from(base_ref.clone())),
    ]);
    let mut working_directory = PathBuf::from(worktree_path);
    if let Some(target) = field(allocation, "targetPath") {
        prompt_sections.push(format!("Worktree target path: {target} (sparse-checkout enabled)"));
        metadata.insert("git_worktree_target_path".to_owned(), Value::from(target));
        working_directory.push(target);
    }
    Some(Context {
        env: BTreeMap::from([
            ("AGENT_REPO_ROOT".to_owned(), absolute(Path::new(field(allocation, "repoRoot")?))),
            ("AGENT_WORKTREE_PATH".to_owned(), path),
            ("AGENT_WORKTREE_BASE_REF".to_owned(), base_ref),
        ]),
        prompt_sections,
        metadata,
        working_directory: Some(working_directory),
        names,
    })
}

/// A path of the plan as text that [`WORKSPACE_ROOT`] will make absolute.
fn absolute(path: &Path) -> String {
    if path.is_absolute() {
        return path.to_string_lossy().into_owned();
    }
    if path == Path::new(".") {
        return WORKSPACE_ROOT.to_owned();
    }
    format!("{WORKSPACE_ROOT}/{}", path.display())
}

/// A glob names files of the workspace, below it.
fn check_glob(glob: &str, place: &Place) -> Result<(), Fault> {
    let refused = |why: &str| {
        let message = format!("`{}` is no glob of files in the workspace", glob.escape_debug());
        Err(fault(
            rule::GLOB,
            place,
            &message,
            why,
            Some("write it relative to the workspace: `.env`, `config/*`".to_owned()),
        ))
    };
    if Path::new(glob).is_absolute() || Path::new(glob).components().any(|part| part == Component::ParentDir)
    {
        return refused("leads out of it");
    }
    globset::Glob::new(glob).map(drop).or_else(|error| refused(&error.kind().to_string()))
}

/// Where the seed keeps the worktrees of a session's children.
pub(crate) fn nested_root(parent: &Path, scoped_parent: &str) -> PathBuf {
    parent.join(".ai_ops/child-worktrees").join(scoped_parent)
}

fn top_of(path: &Path) -> String {
    path.components().next().map(|top| top.as_os_str().to_string_lossy().into_owned()).unwrap_or_default()
}

/// The way from `below` up to `above`, which it lies in: `.`, `..`, `../..`.
fn way_up(below: &Path, above: &Path) -> PathBuf {
    match below.strip_prefix(above) {
        Ok(rest) if rest.as_os_str().is_empty() => PathBuf::from("."),
        Ok(rest) => rest.components().map(|_| Component::ParentDir.as_os_str()).collect(),
        Err(_) => above.to_owned(),
    }
}

fn unknown_ref(base_ref: &str, unknown: Option<&UnknownRef>, place: &Place) -> Fault {
    let message = format!("`{}` names no commit of this repository", base_ref.escape_debug());
    let reason = unknown.map_or("was not looked up", |unknown| unknown.reason.as_str());
    let (label, help) = meant(unknown.map_or(&[], |unknown| &unknown.near), reason);
    let help = help.unwrap_or_else(|| {
        "write a branch, a tag or a commit; `git branch --all` and `git tag` list what there is".to_owned()
    });
    fault(rule::UNKNOWN_REF, &place.key("base-ref"), &message, &label, Some(help))
}

/// What was probably meant, nearest first, as a label, and as help what else may have been.
fn meant(near: &[String], otherwise: &str) -> (String, Option<String>) {
    match near {
        [] => (otherwise.to_owned(), None),
        [first] => (format!("did you mean `{first}`?"), Some(format!("write `\"{first}\"`"))),
        [first, others @ ..] => {
            let others: Vec<_> = others.iter().map(|other| format!("`{other}`")).collect();
            (format!("did you mean `{first}`?"), Some(format!("also like it: {}", others.join(", "))))
        }
    }
}

fn fault(rule: &'static Rule, place: &Place, message: &str, label: &str, help: Option<String>) -> Fault {
    Fault {
        rule,
        place: place.clone(),
        message: message.to_owned(),
        label: label.to_owned(),
        help: help.map(String::into_boxed_str),
    }
}
