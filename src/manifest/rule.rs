//! Rules for manifests: one rule per diagnostic, with an id that programs may rely on.

use std::fmt;

/// Rule that a [`Diagnostic`](super::Diagnostic) reports as violated.
///
/// Providers outside of this crate define their own rules. A published id keeps its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Rule {
    /// Stable id, in kebab-case.
    pub id: &'static str,
    /// Requirement on a manifest, one sentence without a full stop.
    pub about: &'static str,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

/// Rules of syntax and structure: a client that knows only the JSON schema finds their violations too.
pub const STRUCTURAL: [&Rule; 9] = [
    SYNTAX,
    DUPLICATE_KEY,
    UNKNOWN_KEY,
    MISSING_KEY,
    WRONG_TYPE,
    NOT_ALLOWED,
    OUT_OF_RANGE,
    WRONG_SIZE,
    NOT_A_NAME,
];

macro_rules! rules {
    ($($name:ident = $id:literal, $about:literal;)*) => {
        $(#[doc = $about] pub const $name: &Rule = &Rule { id: $id, about: $about };)*

        /// Every rule of seedbed itself.
        pub const ALL: &[&Rule] = &[$($name),*];
    };
}

rules! {
    NOT_UTF8 = "not-utf-8", "A manifest is text in UTF-8";
    SYNTAX = "syntax", "A manifest is TOML";
    DUPLICATE_KEY = "duplicate-key", "A key or a table is declared only once";
    NO_SUCH_VALUE = "no-such-value", "No value is a date, a time, infinite, or larger than 64 bits";
    OVERRIDE = "override", "A value that is set for one run exists in the manifest, or can be added there";
    VERSION = "version", "The version is one that this release reads";
    UNKNOWN_KEY = "unknown-key", "Tables have only known keys";
    MISSING_KEY = "missing-key", "Tables have all required keys";
    WRONG_TYPE = "wrong-type", "Values have the type that their key requires";
    NOT_ALLOWED = "not-allowed", "Values are among those that their key allows";
    OUT_OF_RANGE = "out-of-range", "Numbers are within their bounds";
    WRONG_SIZE = "wrong-size", "Strings and arrays are neither empty nor too long";
    NOT_A_NAME = "not-a-name", "Names have only the characters that their key allows";
    UNKNOWN_KIND = "unknown-kind", "Kinds of resources are built in or declared by a provider";
    KIND_CONFLICT = "kind-conflict", "No external kind has the name of a built-in kind";
    KIND_NOT_RUN = "kind-not-run", "Requested kinds have a provider";
    PROGRAM = "program", "The program of an external kind plans every request";
    OPTIONS_SCHEMA = "options-schema", "The schema of an external kind is a JSON schema in a file of the workspace, without references";
    EXTERNAL_OPTION = "external-option", "The program of an external kind accepts the options";
    KIND_TWICE = "kind-twice", "A session requests a kind only once, unless the kind allows several resources";
    NAME_TWICE = "name-twice", "Resources of a session have different names";
    REPLICA_NUMBER = "replica-number", "Sessions of a table with `count` have different numbers";
    VARIABLE_TWICE = "variable-twice", "Resources of a session set different environment variables";
    NAMES_MEET = "names-meet", "Names of sessions in one table differ in more than upper and lower case";
    NAME_TOO_LONG = "name-too-long", "The names of replicas are not too long";
    NO_PARENT = "no-parent", "Only a child has something of a parent";
    SHARD = "shard", "A session at the top chooses one of the shards of the fleet";
    FLEET_KIND = "fleet-kind", "No session of a fleet requests an external kind";
    FLEET_HOSTS = "fleet-hosts", "Each shard of a fleet has a host";
    NOTHING_TO_SHARE = "nothing-to-share", "The parent has the resource of which a child takes a share";
    INDIVISIBLE = "indivisible", "A resource of which children take shares can be divided";
    RESERVED_VARIABLE = "reserved-variable", "The environment of a session sets no variable that decides which programs run";
    UNPRINTABLE = "unprintable", "Text that programs read line by line has no control characters";
    BLANK_AROUND = "blank-around", "Refs, paths and names neither begin nor end with a blank";
    WORKSPACE_ROOT = "workspace-root", "The workspace root is a directory that exists, and its path is valid text";
    WORKING_DIRECTORY = "working-directory", "The working directory of a session is that of one of its resources";
    EMPTY_COMMAND = "empty-command", "A command names a program";
    READY = "ready", "A condition of `ready` is a port of the session or a command, after commands that the session has";
    TOO_MANY_SESSIONS = "too-many-sessions", "A manifest declares at most 200,000 sessions";
    TOO_LARGE = "too-large", "The plan of a manifest fits in memory";
    TEMPLATE_SYNTAX = "template-syntax", "Templates have valid syntax";
    TEMPLATE_NAME = "template-name", "Templates use only names that exist for their session";
    TEMPLATE_CIRCLE = "template-circle", "Variables of sessions do not use each other in a circle";
    TEMPLATE_SIZE = "template-size", "Templates and their results are not too long, and do not take too many steps";
    TEMPLATE_VALUE = "template-value", "Results of templates are values that an environment can contain";
    NO_REPOSITORY = "no-repository", "The workspace of a session with a worktree is in a Git repository, and each declared repository is one";
    REPOSITORY = "repository", "A worktree's repository is declared, and lies outside of the sessions' worktrees";
    UNKNOWN_REF = "unknown-ref", "A base ref names a commit of the repository";
    BASE_AGE = "base-age", "A base ref is not older than `max-base-age` allows";
    RESOURCE_NAME = "resource-name", "The names of several worktrees of one session can be part of names of refs";
    TARGET_PATH = "target-path", "A target path is a directory of the commit";
    TRACKED_PATH = "tracked-path", "The commit has no file at a path that seedbed writes";
    ROOT_DIRECTORY = "root-directory", "Worktrees and directories of sessions have a directory of their own, out of which no link leads";
    PATH_EXISTS = "path-exists", "Nothing exists at the path of a new worktree or directory";
    PATH_TOO_LONG = "path-too-long", "Paths are short enough for Git";
    OVERLAY = "overlay", "Overlays are requested only if they can be mounted";
    BRANCH = "branch", "A branch has a name that Git accepts, and belongs to one session only";
    GLOB = "glob", "Globs match files of the workspace";
    COPIED_FILE = "copied-file", "Files to copy or link are untracked files that exist in the workspace";
    SEED = "seed", "A seed is a directory that the commit does not have, populated by one command for all sessions";
    EXISTING_DIRECTORY = "existing-directory", "A directory of another tool exists, apart from the workspace, and one session works in it";
    SESSION_FILE = "session-file", "A file of a session has a plain path in a worktree of the session, at which nothing else is";
    TEMPLATE_FILE = "template-file", "A template file is a text file of the workspace, at most 64 KiB long";
    COPIED_DIRECTORY = "copied-directory", "A directory to copy is in the workspace, apart from its copies";
    PORTS_PAST_END = "ports-past-end", "The blocks of a port range end at port 65535 at the latest";
    PRIMARY_PORT = "primary-port", "The primary port is one of the ports that the session keeps";
    PORT_NAME = "port-name", "Names of ports have allowed characters, are unique, and are not reserved by seedbed";
    PORT_NAMES_DO_NOT_FIT = "port-names-do-not-fit", "A session has a port for each name";
    RESERVE = "reserve", "A session reserves no more ports than its block has";
    NO_FREE_BLOCK = "no-free-block", "The range has a free block";
    POOL_ITEMS = "pool-items", "A pool has a list of different items, each one line of text without commas";
    NO_FREE_ITEM = "no-free-item", "A pool has enough free items";
    NO_PORT_TO_SHARE = "no-port-to-share", "Each share has at least one port";
    SLOTS = "slots", "There are at least as many slots as children that take a share";
    OPTION_OF_A_BLOCK = "option-of-a-block", "Options that divide a block are set for the block, not for a share of it";
    LOCK_DIRECTORY = "lock-directory", "Lock files have a directory of their own, out of which no link leads";
    INSTANCE = "instance", "Instances of one manifest, each for one `run`, work in different directories";
    STALE = "stale", "The assumptions of the plan are still true";
    BROKEN_KIND = "broken-kind", "The provider of a kind accepts all options that its own schema allows";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ALL;

    #[test]
    fn ids_are_unique_and_in_kebab_case() {
        let ids: BTreeSet<_> = ALL.iter().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), ALL.len());
        let is_kebab =
            |id: &&str| id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        assert!(ids.iter().all(is_kebab), "{ids:?}");
    }
}
