//! Checks a worktree's options against the repository and the workspace as they were observed.

use std::path::{Component, Path};

use super::super::fetch::is_proposal;
use super::super::{Checkout, Options};
use super::{Worktrees, diagnostic, repository_of};
use crate::host::absolute;
use crate::host::text::{self, shell_quoted};
use crate::manifest::{Diagnostic, Diagnostics, Location, rule};
use crate::name::nearest;
use crate::observe::{
    Directory, Repository, RepositoryObservation, TreeEntry, UnknownRef, Untracked, WORKSPACE_REPOSITORY,
};
use crate::provider::{DISCOVERY_DIRECTORY, Request, is_in_git_directory};

/// Maximum length of a worktree's path, in bytes: Git was measured to fail near 4070, and files lie below the path.
const PATH_MAX: usize = 4000;

impl Worktrees<'_> {
    /// Checks that the manifest declares the repository that the options name, and that it is no worktree of a session.
    /// A declared repository that cannot be used is reported at its table.
    pub(super) fn check_repository(
        &self,
        options: &Options,
        root: &Path,
        location: &Location,
    ) -> Result<(), Diagnostics> {
        let Some(name) = &options.repository else { return Ok(()) };
        let refused = |message: String, label: &str, help: String| {
            let location = location.key("repository");
            Err(vec![diagnostic(rule::REPOSITORY, &location, &message, label, Some(help))].into())
        };
        let shown = name.escape_debug();
        let Some(observed) = self.observation.repositories.get(name) else {
            let declared = self.observation.repositories.keys().map(String::as_str);
            let declared = declared.filter(|name| *name != WORKSPACE_REPOSITORY);
            let help = match nearest(name, declared) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("declare it: `[repository.{shown}]`, with its `root`"),
            };
            return refused(format!("the manifest declares no repository `{shown}`"), "not declared", help);
        };
        let Some(Ok(repository)) = &observed.repository else { return Err(Vec::new().into()) };
        if repository.root.starts_with(absolute(&self.observation.workspace, root)) {
            let message =
                format!("the repository `{shown}` lies in the directory of worktrees {}", root.display());
            return refused(
                message,
                "would be removed with a session",
                format!("name a repository outside as `root` of `[repository.{shown}]`"),
            );
        }
        Ok(())
    }

    pub(super) fn check_overlay(&self, options: &Options, location: &Location) -> Result<(), Diagnostic> {
        let Some(Err(why)) =
            self.observation.overlays.as_ref().filter(|_| options.checkout == Checkout::Overlay)
        else {
            return Ok(());
        };
        let message = format!("overlays cannot be mounted in the state directory of this host: {why}");
        let help = "use `checkout = \"auto\"`; overlays need Linux, root (or a user namespace of one's own), and a state \
                    directory (SEEDBED_STATE_DIR) on a file system such as ext4, xfs or tmpfs, not on an overlay itself";
        Err(diagnostic(
            rule::OVERLAY,
            &location.key("checkout"),
            &message,
            "would be mounted",
            Some(help.to_owned()),
        ))
    }

    /// Finds conflicts with the path of one worktree.
    pub(super) fn check_path(
        &self,
        repository: &Repository,
        root: &Path,
        path: &Path,
        request: &Request<'_>,
        options: &Options,
    ) -> Result<(), Diagnostic> {
        let location = || request.location.key("root-directory");
        let admin_name = &*super::admin_name(request.scoped_name, request.resource, request.several);
        // The session's own directory is another resource, which is checked like this one.
        if path.parent() == Some(root)
            && let Some(Directory::Listed(names)) = self.observation.directories.get(root)
            && names.contains(request.scoped_name)
            && !self.freed.contains(path)
        {
            let message = format!("`{}` exists already and is not this swarm's", path.display());
            let help = "`seedbed doctor` reports whether it belongs to another swarm; if not, move it away"
                .to_owned();
            return Err(diagnostic(
                rule::PATH_EXISTS,
                &location(),
                &message,
                "where the worktree would be created",
                Some(help),
            ));
        }
        if repository.worktrees.contains(admin_name)
            && !self.names_in(&repository.common_dir).freed_admin_directories.contains(admin_name)
        {
            let message =
                format!("the repository already has a worktree `{admin_name}` that is not this swarm's");
            let git = self.observation.git_command(repository_of(options));
            let root = shell_quoted(&repository.root.display().to_string());
            let help = format!(
                "`{git} worktree list` shows where it is; `seedbed -C {root} doctor` reports whether it belongs to a swarm"
            );
            return Err(diagnostic(
                rule::PATH_EXISTS,
                request.location,
                &message,
                "would have that name",
                Some(help),
            ));
        }
        let length = self.observation.workspace.join(path).as_os_str().len();
        if length > PATH_MAX {
            let message = format!("the worktree's path would have {length} bytes, more than {PATH_MAX}");
            return Err(diagnostic(rule::PATH_TOO_LONG, &location(), &message, "too deep", None));
        }
        Ok(())
    }
}

pub(super) fn check_target(
    observed: &RepositoryObservation,
    at: &str,
    target: Option<&str>,
    location: &Location,
) -> Result<(), Diagnostic> {
    let Some(target) = target else { return Ok(()) };
    let location = location.key("target-path");
    let what = match observed.trees.get(&(at.to_owned(), target.to_owned())) {
        Some(TreeEntry::Directory) => return Ok(()),
        Some(TreeEntry::Missing { near }) => {
            let message = format!("`{target}` does not exist in `{at}`");
            let (label, help) = meant(near, "no such directory in that commit");
            let help = help.unwrap_or_else(|| {
                format!("write a directory of the commit; `git ls-tree -d {}` lists them", shell_quoted(at))
            });
            return Err(diagnostic(rule::TARGET_PATH, &location, &message, &label, Some(help)));
        }
        Some(TreeEntry::File) => "a file",
        Some(TreeEntry::Link) => "a symbolic link",
        Some(TreeEntry::Submodule) => "a submodule",
        None => "unknown",
    };
    let message = format!("`{target}` is {what} in `{at}`, not a directory");
    Err(diagnostic(rule::TARGET_PATH, &location, &message, "has to be a directory", None))
}

/// Refuses a tracked discovery path: its file would be overwritten, or if it is a link, the file behind it.
pub(super) fn check_discovery(
    observed: &RepositoryObservation,
    at: &str,
    target: Option<&str>,
    location: &Location,
) -> Result<(), Diagnostic> {
    let path = match target {
        Some(target) => format!("{target}/{DISCOVERY_DIRECTORY}"),
        None => DISCOVERY_DIRECTORY.to_owned(),
    };
    check_untracked(observed, at, &path, "where every session finds its discovery file", location)
}

pub(super) fn check_untracked(
    observed: &RepositoryObservation,
    at: &str,
    path: &str,
    role: &str,
    location: &Location,
) -> Result<(), Diagnostic> {
    let what = match observed.trees.get(&(at.to_owned(), path.to_owned())) {
        None | Some(TreeEntry::Missing { .. }) => return Ok(()),
        Some(TreeEntry::Directory) => "as a directory",
        Some(TreeEntry::File) => "as a file",
        Some(TreeEntry::Link) => "as a symbolic link",
        Some(TreeEntry::Submodule) => "as a submodule",
    };
    Err(diagnostic(
        rule::TRACKED_PATH,
        location,
        &format!("`{at}` tracks `{path}` {what}, {role}"),
        "checks out that commit",
        Some(format!(
            "remove it from the repository (`git rm -r --cached {}`), or use another `base-ref`",
            shell_quoted(path)
        )),
    ))
}

/// Checks that a path in `copy` or `link` is an untracked file of the workspace, or of another repository by its name, or
/// a directory that contains some.
pub(super) fn check_copied(
    observed: &RepositoryObservation,
    options: &Options,
    glob: &str,
    location: &Location,
) -> Result<(), Diagnostic> {
    let name = glob.escape_debug();
    let source = super::source(super::repository_of(options));
    let refused = |message: String, label: &str, help: Option<String>| {
        Err(diagnostic(rule::COPIED_FILE, location, &message, label, help))
    };
    match observed.untracked.get(glob) {
        None | Some(Ok(Untracked::Files { .. })) => Ok(()),
        Some(Ok(Untracked::Missing)) => refused(
            format!("{source} has no file `{name}` to bring into worktrees"),
            "does not exist",
            Some(format!("create it in {source}, or remove it here")),
        ),
        Some(Ok(Untracked::Tracked)) => refused(
            format!("Git tracks `{name}`, and every worktree has it from its commit"),
            "is tracked",
            Some(format!(
                "remove it here, or keep it out of the repository: `git rm --cached {}`",
                shell_quoted(glob)
            )),
        ),
        Some(Err(why)) => refused(
            format!("the untracked files of {source} cannot be listed: {why}"),
            "would be among them",
            None,
        ),
    }
}

/// Checks that a glob names files below the workspace.
pub(super) fn check_glob(glob: &str, location: &Location) -> Result<(), Diagnostic> {
    let refused = |why: &str| {
        let message = format!("`{}` is no glob of files in the workspace", glob.escape_debug());
        Err(diagnostic(
            rule::GLOB,
            location,
            &message,
            why,
            Some("write it relative to the workspace: `.env`, `config/*`".to_owned()),
        ))
    };
    if Path::new(glob).components().all(|part| part == Component::CurDir) {
        return refused("names no file");
    }
    if is_in_git_directory(Path::new(glob)) {
        return refused("leads into a git directory");
    }
    if Path::new(glob).is_absolute() || Path::new(glob).components().any(|part| part == Component::ParentDir)
    {
        return refused("leads out of it");
    }
    globset::Glob::new(glob).map(drop).or_else(|error| refused(&error.kind().to_string()))
}

/// Refuses a base ref that is older than the manifest allows: neither its commit nor its last fetch is young enough.
pub(super) fn check_age(
    observed: &RepositoryObservation,
    options: &Options,
    location: &Location,
) -> Result<(), Diagnostic> {
    let Some(limit) = &options.max_base_age else { return Ok(()) };
    // The schema requires a time.
    let Ok(max) = humantime::parse_duration(limit) else { return Ok(()) };
    let location = location.key("max-base-age");
    let base_ref = options.base_ref.escape_debug();
    let Some(age) = observed.ages.get(&options.base_ref) else { return Ok(()) };
    let is_fetched = age.behind == 0 && age.fetched.is_some_and(|fetched| fetched <= max);
    if age.committed <= max || is_fetched {
        return Ok(());
    }
    let fetched = match (age.fetched, &age.remote, age.behind) {
        (_, None, _) if is_proposal(&options.base_ref) => "it was not fetched for this plan".to_owned(),
        (_, None, _) => "it follows no remote".to_owned(),
        (Some(fetched), Some(remote), 0) => {
            format!("{remote} was last fetched {} ago", text::largest_unit(fetched))
        }
        (None, Some(remote), 0) => format!("the last fetch of {remote} is unknown"),
        (_, Some(remote), behind) => {
            format!("it lacks {behind} {} of {remote}", if behind == 1 { "commit" } else { "commits" })
        }
    };
    let message = format!(
        "`{base_ref}` is older than {}: its commit is {} old, and {fetched}",
        limit.escape_debug(),
        text::largest_unit(age.committed)
    );
    let is_remote = age.remote.as_ref().is_some_and(|remote| options.base_ref.ends_with(remote.as_str()));
    let help = match &age.remote {
        _ if is_remote || is_proposal(&options.base_ref) => {
            format!("`seedbed plan --fetch` fetches `{base_ref}`, and `seedbed apply --fetch` too")
        }
        Some(remote) => format!(
            "bring it up to date, or use `base-ref = \"{}\"`, which `seedbed plan --fetch` fetches",
            remote.escape_debug()
        ),
        None => {
            "bring it up to date, or use a ref such as `origin/main`, which `seedbed plan --fetch` fetches"
                .to_owned()
        }
    };
    Err(diagnostic(rule::BASE_AGE, &location, &message, "too old", Some(help)))
}

pub(super) fn unknown_ref(base_ref: &str, unknown: Option<&UnknownRef>, location: &Location) -> Diagnostic {
    let message = format!("`{}` names no commit of this repository", base_ref.escape_debug());
    let reason = unknown.map_or("was not looked up", |unknown| unknown.reason.as_str());
    let (label, help) = meant(unknown.map_or(&[], |unknown| &unknown.near), reason);
    let help = if is_proposal(base_ref) {
        format!(
            "`seedbed plan --fetch` fetches `{}`, and `seedbed apply --fetch` too",
            base_ref.escape_debug()
        )
    } else {
        help.unwrap_or_else(|| {
            "write a branch, a tag or a commit; `git branch --all` and `git tag` list what there is, and \
             `seedbed plan --fetch` fetches a ref such as `origin/main`"
                .to_owned()
        })
    };
    diagnostic(rule::UNKNOWN_REF, &location.key("base-ref"), &message, &label, Some(help))
}

/// Returns a label with the nearest known name, and a help text with the other near names.
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
