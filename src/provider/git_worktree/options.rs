//! Options of a `git-worktree`, as a manifest has them.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::manifest::{AGE_PATTERN, CommandLine, written_command};

/// Options of a `git-worktree`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Options {
    /// Name of the repository that the worktree belongs to, of a table `[repository.NAME]`. Default: the workspace's own
    /// repository.
    #[schemars(length(min = 1))]
    #[schemars(extend("examples" = ["web"]))]
    pub repository: Option<String>,
    /// Directory for the worktrees, relative to the workspace root.
    #[schemars(length(min = 1))]
    pub root_directory: PathBuf,
    /// Commit to check out: a branch, a tag or a commit id. It is resolved once, when planning. `plan --fetch` fetches
    /// `origin/main`, and the pull requests `pull/123` (of `origin`) and `upstream/pull/123`.
    #[schemars(length(min = 1))]
    #[schemars(extend("examples" = ["main", "v1.0"]))]
    pub base_ref: String,
    /// Largest age of a `base-ref` that is a branch: `12h`, `1d`, `2w`. An older one is a diagnostic when a worktree is
    /// created. The age is the time since its commit, or since its last fetch if it has all commits that were fetched.
    /// Default: no limit.
    #[schemars(regex(pattern = AGE_PATTERN), extend("examples" = ["1d"]))]
    pub max_base_age: Option<String>,
    /// The one directory of the repository to check out (sparse checkout, cone mode). It is also the working directory
    /// of the session. Default: the whole tree.
    #[schemars(extend("examples" = ["services/api"]))]
    pub target_path: Option<String>,
    /// Branch to work on, a template such as `agents/{{ session.name }}`. It is created at `base-ref` unless it exists
    /// (see `branch-exists`). In an instance, which `seedbed run` creates, `-run-` and its digits follow, unless the template
    /// contains `{{ swarm }}`. Default: a detached HEAD.
    #[schemars(length(min = 1))]
    #[schemars(extend("examples" = ["agents/{{ session.name }}"]))]
    pub branch: Option<String>,
    /// Reaction to a branch that exists already. It only matters when a worktree is created.
    pub branch_exists: BranchExists,
    /// Method of checking out the files.
    pub checkout: Checkout,
    /// Untracked files of the workspace to copy into the worktree, as globs: `.env`, `config/*.local`. The entry
    /// `@worktreeinclude` stands for the ignored files that the patterns of `.worktreeinclude` match. For another
    /// `repository`, untracked files of its work tree.
    #[schemars(extend("examples" = [[".env", "config/*.local"], ["@worktreeinclude"]]))]
    pub copy: Vec<String>,
    /// Untracked files of the workspace to link from the worktree, as globs, for large files that are only read.
    #[schemars(extend("examples" = [["node_modules"]]))]
    pub link: Vec<String>,
    /// Directories such as `node_modules` that a command populates once for all sessions with the same key. Each session
    /// gets its own copy. The command runs in the first session that needs the directory, before `setup`.
    pub seed: Vec<SeedOptions>,
    /// `true` if the repository's own Git hooks run when the worktree is created.
    pub git_hooks: bool,
    /// `true` if the worktree names its repository by a relative path, so that both work in a container that mounts
    /// the workspace at another path.
    pub relative: bool,
    /// Location of the worktrees of children.
    pub layout: Layout,
}

/// Directory that a command populates once for many sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct SeedOptions {
    /// Directory that the command populates, relative to the working directory of the session. The commit must not have
    /// it.
    #[schemars(length(min = 1), extend("examples" = ["node_modules"]))]
    pub path: String,
    /// Files of the commit that decide the result of the command, relative to the working directory. The command runs
    /// again when one of them differs.
    #[schemars(length(min = 1), extend("examples" = [["package-lock.json"]]))]
    pub key: Vec<String>,
    /// Command that populates the directory. It gets the caller's environment variables, and none of a session. An array of
    /// arguments is run without a shell; a string is run by `sh -c`. Strings are no templates.
    #[serde(with = "written_command")]
    #[schemars(schema_with = "command_schema")]
    pub command: CommandLine,
    /// Directory in which the command runs, relative to the working directory of the session. Default: the working
    /// directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), extend("examples" = ["frontend"]))]
    pub directory: Option<String>,
}

fn command_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "examples": [["npm", "ci"]],
        "anyOf": [
            { "type": "array", "minItems": 1, "items": { "type": "string", "examples": ["ci"] } },
            { "type": "string", "minLength": 1 },
        ],
    })
}

/// Method of checking out the files of a worktree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Checkout {
    /// Git checks out the first worktree of a commit and target path. For a whole tree, Git checks out only the files
    /// that the repository's own work tree does not have. The rest is copied from that work tree. Other worktrees of
    /// the same run get copies of the same files. If a copy might differ from Git's own checkout, Git checks those
    /// worktrees out too.
    #[default]
    Auto,
    /// Git checks out every file.
    Git,
    /// The worktree is an overlay mount over one checkout that all sessions of the commit share. It costs milliseconds
    /// and kilobytes a session, independent of the size of the tree. Needs Linux and the right to mount.
    Overlay,
}

/// Reaction to a branch of a worktree that exists already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BranchExists {
    /// The worktree continues at the branch's tip, if the branch contains the commit of `base-ref` and no worktree has
    /// it checked out. A branch that an earlier run created, and whose commits are all in `base-ref`, is moved forward to
    /// it. Anything else is a diagnostic. A branch never loses a commit.
    #[default]
    Reuse,
    /// An existing branch is a diagnostic.
    Refuse,
}

/// Location of the worktrees of children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Layout {
    /// Beside the worktrees of their parents: nothing that is done to a parent's worktree reaches into a child's.
    #[default]
    Flat,
    /// Inside the parent's worktree, at `.ai_ops/child-worktrees/SCOPED_PARENT/SCOPED_CHILD`, as in the reference
    /// implementation.
    Nested,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            repository: None,
            root_directory: PathBuf::from(".ai_ops/worktrees"),
            base_ref: "HEAD".to_owned(),
            max_base_age: None,
            target_path: None,
            branch: None,
            branch_exists: BranchExists::default(),
            checkout: Checkout::default(),
            copy: Vec::new(),
            link: Vec::new(),
            seed: Vec::new(),
            git_hooks: false,
            relative: false,
            layout: Layout::default(),
        }
    }
}
