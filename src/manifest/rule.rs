//! Rules for manifests: one rule per diagnostic, with an id that programs may rely on.

use std::fmt;

/// Rule that a [`Fault`](super::Fault) reports as violated.
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
    DUPLICATE_KEY = "duplicate-key", "A key or a table is given once";
    NO_SUCH_VALUE = "no-such-value", "Nothing in a manifest is a date, a time, infinite, or larger than 64 bits";
    VERSION = "version", "The version is one that this seedbed reads";
    UNKNOWN_KEY = "unknown-key", "Tables have only the keys that they are known to have";
    MISSING_KEY = "missing-key", "Tables have the keys that they cannot do without";
    WRONG_TYPE = "wrong-type", "Values are of the type that their key asks for";
    NOT_ALLOWED = "not-allowed", "Values are among those that their key allows";
    OUT_OF_RANGE = "out-of-range", "Numbers lie within their bounds";
    WRONG_SIZE = "wrong-size", "Strings and arrays are neither empty nor too long";
    NOT_A_NAME = "not-a-name", "Names have the form of names";
    UNKNOWN_KIND = "unknown-kind", "Kinds of resources are built in or declared by a provider";
    TAKEN_KIND = "taken-kind", "External kinds have names of their own";
    KIND_NOT_RUN = "kind-not-run", "Kinds that are asked for have a provider that runs";
    PROGRAM = "program", "The program of an external kind plans what it is asked for";
    EXTERNAL_OPTION = "external-option", "The options of an external kind are such as its program takes";
    KIND_TWICE = "kind-twice", "A session asks for a kind once";
    NAMES_MEET = "names-meet", "Sessions of one table differ in more than the case of their names";
    NAME_TOO_LONG = "name-too-long", "The names of replicas are short enough to be names";
    NO_PARENT = "no-parent", "Only a child takes a share of its parent's";
    NOTHING_TO_SHARE = "nothing-to-share", "A share is taken of what the parent has";
    INDIVISIBLE = "indivisible", "A share is taken of a resource that can be divided";
    RESERVED_VARIABLE = "reserved-variable", "A session's environment leaves alone what decides which programs run";
    UNPRINTABLE = "unprintable", "Text that is handed on line by line has no control characters";
    BLANK_AROUND = "blank-around", "Refs, paths and names neither begin nor end with a blank";
    WORKSPACE_ROOT = "workspace-root", "The workspace root leads from the manifest to a directory that exists and has a path that is text";
    EMPTY_COMMAND = "empty-command", "A command names a program";
    TOO_MANY_SESSIONS = "too-many-sessions", "A manifest declares at most 200,000 sessions";
    TOO_LARGE = "too-large", "A manifest comes to a plan that fits in memory";
    TEMPLATE_SYNTAX = "template-syntax", "Templates can be read";
    TEMPLATE_NAME = "template-name", "Templates name what their session can see";
    TEMPLATE_SIZE = "template-size", "Templates are short, and soon come to a text that is not too long";
    TEMPLATE_VALUE = "template-value", "Templates come to text that an environment can hold";
    NO_REPOSITORY = "no-repository", "The workspace of a session with a worktree is in a git repository";
    UNKNOWN_REF = "unknown-ref", "A base ref names a commit of the repository";
    TARGET_PATH = "target-path", "A target path is a directory of the commit";
    TRACKED_PATH = "tracked-path", "The commit tracks nothing where seedbed writes";
    ROOT_DIRECTORY = "root-directory", "Worktrees and directories of sessions have a directory of their own, which no link leads out of";
    PATH_TAKEN = "path-taken", "Nothing stands where a worktree or a directory will";
    PATH_TOO_LONG = "path-too-long", "Paths are short enough for git";
    OVERLAY = "overlay", "Overlays are asked for where they can be mounted";
    BRANCH = "branch", "A branch has a name that git takes, and is one session's alone";
    GLOB = "glob", "Globs name files of the workspace";
    COPIED_FILE = "copied-file", "Files that are copied or linked are untracked files that exist in the workspace";
    COPIED_DIRECTORY = "copied-directory", "A directory that is copied lies in the workspace, beside its copies";
    PORTS_PAST_END = "ports-past-end", "The blocks of a port range end at port 65535 at the latest";
    PRIMARY_PORT = "primary-port", "The primary port is one of those that the session keeps";
    PORT_NAME = "port-name", "Names of ports have the form of port names, and meet neither each other nor seedbed's own";
    PORT_NAMES_DO_NOT_FIT = "port-names-do-not-fit", "A session has a port for each name";
    RESERVE = "reserve", "A session reserves no more ports than its block has";
    NO_FREE_BLOCK = "no-free-block", "A block of the range is free";
    NO_PORT_TO_SHARE = "no-port-to-share", "Each child that takes a share finds a port in it";
    SLOTS = "slots", "There are as many slots as children that take a share";
    OPTION_OF_A_BLOCK = "option-of-a-block", "How a block is cut is said of the block, not of a share of it";
    LOCK_DIRECTORY = "lock-directory", "Lock files have a directory of their own, which no link leads out of";
    STALE = "stale", "What was planned can still be made";
    BROKEN_KIND = "broken-kind", "A kind's provider understands the options that its own schema allows";
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
