//! Semantics of a manifest that a schema cannot express: colliding names, unknown kinds, strings that no environment
//! can contain.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::diagnostic::{Diagnostic, Location};
use super::document::{Document, Resource, SESSION, SessionTable};
use super::key_path::KeyPath;
use super::ready::Probe;
use super::rule::{self, Rule};
use super::session_text::{FILES, READY, SessionText, TextEntry};
use super::text::{escaped, listed, quoted};
use super::{CommandLine, From, conditions, session_files, size_limits};
use crate::name::{NAME_MAX, nearest, variable_part};

/// Variables that a session's environment cannot set, each with the reason.
const DENIED: [(&str, &str); 10] = [
    ("PATH", "it decides which programs run"),
    ("PWD", "it is the directory that a program runs in"),
    ("OLDPWD", "it is the directory that a program was started from"),
    ("LD_*", "it makes the linker load code into every program"),
    ("DYLD_*", "it makes the linker load code into every program"),
    ("BASH_ENV", "it makes every shell run a file first"),
    ("ENV", "it makes every shell run a file first"),
    ("IFS", "it changes how shells read every command"),
    ("GIT_*", "it points git to other repositories"),
    ("AGENT_*", "seedbed sets it itself"),
];

/// Checks everything about `document` that can be known without inspecting the host.
///
/// `known` are the existing kinds. If `complete` is false, wrong parts of the document have been removed. Nothing is then
/// concluded from keys that a session lacks.
pub(super) fn check(
    document: &Document,
    known: &BTreeSet<&str>,
    complete: bool,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut semantics = Semantics { known, complete, diagnostics };
    if let Some(root) = &document.workspace.root {
        semantics.root(root, "the workspace root", &KeyPath::ROOT.key("workspace").key("root"));
    }
    let repositories = KeyPath::ROOT.key("repository");
    for (name, repository) in &document.repository {
        let what = format!("the root of the repository {}", quoted(name));
        semantics.root(&repository.root, &what, &repositories.key(name).key("root"));
    }
    let defaults = KeyPath::ROOT.key("defaults");
    if let Some(session) = &document.defaults.session {
        let at = defaults.key(SESSION);
        semantics.texts(&session.text(), &at);
        semantics.diagnostics.extend(session_files::check(&session.files, &at.key(FILES)));
        semantics.diagnostics.extend(conditions::check(&session.ready, &at.key(READY)));
    }
    for (kind, options) in &document.defaults.kinds {
        let at = defaults.key(kind);
        semantics.kind(kind, || at.location().the_key());
        semantics.options(options, &at);
    }
    let providers = KeyPath::ROOT.key("provider");
    for (kind, provider) in &document.provider {
        semantics.arguments(&provider.command, &providers.key(kind).key("command"));
    }
    let sessions = KeyPath::ROOT.key("session");
    let shards = document.fleet.as_ref().and_then(|fleet| fleet.shards);
    for (name, table) in &document.session {
        semantics.shard(table.shard, shards, &sessions.key(name).key("shard"));
    }
    semantics.siblings(&document.session, &sessions);
    let of_session = |(name, table): (&String, &SessionTable)| {
        let mut diagnostics = Vec::new();
        Semantics { known, complete, diagnostics: &mut diagnostics }.session(
            table,
            &sessions.key(name),
            None,
        );
        diagnostics
    };
    let found: Vec<_> = document.session.par_iter().flat_map_iter(of_session).collect();
    semantics.diagnostics.extend(found);
    semantics.diagnostics.extend(size_limits::check(document));
}

/// Resources of a session: the kind of each, by name.
type Resources<'t> = BTreeMap<&'t str, &'t str>;

struct Semantics<'a> {
    known: &'a BTreeSet<&'a str>,
    complete: bool,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl Semantics<'_> {
    fn diagnostic(
        &mut self,
        rule: &'static Rule,
        location: Location,
        message: String,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.diagnostics.push(Diagnostic::new(rule, location, message, label).with_help(help));
    }

    fn root(&mut self, root: &str, what: &str, at: &KeyPath<'_>) {
        let wrong = if root.is_empty() {
            "is empty"
        } else if root.starts_with('/') {
            "is absolute"
        } else if root.starts_with('~') {
            "begins with `~`"
        } else {
            return self.plain(root, at, || quoted("root"));
        };
        let message = format!("{what} {wrong}");
        let help = "write the path from the directory of this file to the repository: `root = \".\"`";
        self.diagnostic(rule::WORKSPACE_ROOT, at.location(), message, "not a relative path", help);
    }

    /// Checks that the shard of a session at the top is one of the fleet's.
    fn shard(&mut self, shard: Option<u32>, shards: Option<u32>, at: &KeyPath<'_>) {
        if let (Some(shard), Some(shards)) = (shard, shards)
            && shard >= shards
        {
            let message = format!("the fleet has no shard {shard}");
            let help = format!("the shards are 0 to {}", shards - 1);
            self.diagnostic(rule::SHARD, at.location(), message, "no such shard", help);
        }
    }

    /// Checks one table of sessions: no two names may collide, with replicas expanded.
    fn siblings(&mut self, tables: &BTreeMap<String, SessionTable>, at: &KeyPath<'_>) {
        let mut folded: HashMap<String, (&str, Option<u32>)> = HashMap::with_capacity(tables.len());
        for (name, table) in tables {
            let longest = table.count.map_or(0, |count| 1 + (count.max(1) - 1).to_string().len());
            if name.len() + longest > NAME_MAX {
                let message = format!("the names of {}'s replicas are longer than {NAME_MAX}", quoted(name));
                let help = format!("a name may be {NAME_MAX} long, `-` and the replica's number included");
                self.diagnostic(
                    rule::NAME_TOO_LONG,
                    at.key(name).location().the_key(),
                    message,
                    "too long with a number behind it",
                    help,
                );
            }
            if let Some((other, _)) = folded.insert(name.to_ascii_lowercase(), (name, table.count)) {
                let message = format!("{} and {} differ only in case", quoted(other), quoted(name));
                let help = "names become files, and not every file system distinguishes case";
                self.diagnostic(
                    rule::NAMES_MEET,
                    at.key(name).location().the_key(),
                    message,
                    "already in use, in another case",
                    help,
                );
            }
        }
        for (name, table) in tables {
            let Some((base, number)) = name.rsplit_once('-') else { continue };
            let Some(number) = number.parse::<u32>().ok().filter(|parsed| parsed.to_string() == number)
            else {
                continue;
            };
            let counted = folded.get(&base.to_ascii_lowercase()).copied();
            if let (None, Some((counted, Some(count)))) = (table.count, counted)
                && number < count
            {
                let message =
                    format!("{} is also the name of a replica of {}", quoted(name), quoted(counted));
                let help = format!("`count = {count}` names `{counted}-0` to `{counted}-{}`", count - 1);
                self.diagnostic(
                    rule::NAMES_MEET,
                    at.key(name).location().the_key(),
                    message,
                    "already the name of a replica",
                    help,
                );
            }
        }
    }

    /// Checks a session and all its descendants. `parent` contains the parent's resources; `None` at the top.
    fn session(&mut self, table: &SessionTable, at: &KeyPath<'_>, parent: Option<&Resources<'_>>) {
        let mut own = Resources::new();
        let mut folded = BTreeMap::new();
        let requests = table.resources.as_deref().unwrap_or_default();
        let entries = at.key("resources");
        for (index, request) in present(requests) {
            let at = entries.index(index);
            self.request(request, &at, parent);
            let name = request.name();
            own.entry(name).or_insert(&request.kind);
            let first = *folded.entry(variable_part(name)).or_insert((index, name));
            if first.0 != index {
                self.name_twice(request, &at, first);
            }
        }
        self.texts(&table.text(), at);
        self.diagnostics.extend(session_files::check(&table.files, &at.key(FILES)));
        self.diagnostics.extend(conditions::check(&table.ready, &at.key(READY)));
        if parent.is_none() && table.inherit == Some(true) {
            self.diagnostic(
                rule::NO_PARENT,
                at.key("inherit").location(),
                "a session at the top has no parent to inherit from".to_owned(),
                "no parent here",
                "omit `inherit`: every session has the text of `[defaults.session]`",
            );
        }
        if parent.is_some() && table.shard.is_some() {
            self.diagnostic(
                rule::SHARD,
                at.key("shard").location(),
                "only a session at the top chooses a shard".to_owned(),
                "below another session",
                "omit `shard`: a child is on the host of its parent",
            );
        }
        let has = match (&table.resources, parent) {
            (None, Some(inherited)) => inherited,
            _ => &own,
        };
        if let Some(name) = &table.directory
            && self.complete
            && !has.contains_key(name.as_str())
        {
            self.unknown_directory(name, &at.key("directory"), has);
        }
        let children = at.key("child");
        self.siblings(&table.child, &children);
        for (name, child) in &table.child {
            self.session(child, &children.key(name), Some(has));
        }
    }

    /// Reports a `directory` that names no resource of the session.
    fn unknown_directory(&mut self, name: &str, at: &KeyPath<'_>, has: &Resources<'_>) {
        let label = match nearest(name, has.keys().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "not a resource of the session".to_owned(),
        };
        let help = match has.len() {
            0 => "the session has no resources: remove `directory`".to_owned(),
            _ => format!("the session has {}", listed(has.keys().copied(), "and")),
        };
        let message = format!("{} names no resource of the session", quoted(name));
        self.diagnostic(rule::WORKING_DIRECTORY, at.location(), message, label, help);
    }

    /// Reports a resource whose name the entry `first`, an index and a name, has as well.
    fn name_twice(&mut self, request: &Resource, at: &KeyPath<'_>, (first, other): (usize, &str)) {
        let name = request.name();
        let message = if other == name {
            format!("{} is the name of `resources[{first}]` already", quoted(name))
        } else {
            format!(
                "{} and {} of `resources[{first}]` name the same variables of the environment",
                quoted(name),
                quoted(other)
            )
        };
        let (location, help) = if request.name.is_some() {
            (at.key("name").location(), "choose another `name`".to_owned())
        } else {
            let entry = format!("{{ kind = \"{}\", name = \"…\" }}", escaped(&request.kind));
            (at.location(), format!("put the options into one entry, or name this one: `{entry}`"))
        };
        self.diagnostic(rule::NAME_TWICE, location, message, "the second one", help);
    }

    fn request(&mut self, request: &Resource, at: &KeyPath<'_>, parent: Option<&Resources<'_>>) {
        let kind = request.kind.as_str();
        // If the entry is a string, the string is the `kind`, and the path ends at the entry.
        let known = self.kind(kind, || at.key("kind").location());
        self.options(&request.options, at);
        match (parent, request.from) {
            (None, Some(From::Parent)) => self.diagnostic(
                rule::NO_PARENT,
                at.key("from").location(),
                "a session at the top has no parent to take a share from".to_owned(),
                "no parent here",
                "omit `from`: sessions at the top always allocate from the pool",
            ),
            (Some(parent), None | Some(From::Parent))
                if known && self.complete && parent.get(request.name()) != Some(&kind) =>
            {
                self.nothing_to_share(request, at, parent);
            }
            _ => {}
        }
    }

    /// Reports a request for a share of a resource that the parent does not have.
    fn nothing_to_share(&mut self, request: &Resource, at: &KeyPath<'_>, parent: &Resources<'_>) {
        let (kind, name) = (request.kind.as_str(), request.name());
        let key = match request {
            Resource { from: Some(_), .. } => "from",
            Resource { name: Some(_), .. } => "name",
            _ => "kind",
        };
        let named = match &request.name {
            Some(name) => format!("{} called {}", quoted(kind), quoted(name)),
            None => quoted(kind),
        };
        let others = parent.iter().filter(|(other, of)| **of == kind && **other != name);
        let help = match others.map(|(other, _)| escaped(other)).next() {
            Some(other) => format!("the parent has one called `{other}`: `name = \"{other}\"`"),
            None => {
                format!(
                    "give the parent one, or request a new one: `{{ kind = \"{kind}\", from = \"pool\" }}`"
                )
            }
        };
        self.diagnostic(
            rule::NOTHING_TO_SHARE,
            at.key(key).location(),
            format!("this session's parent has no {named} to share"),
            "a share of what the parent does not have",
            help,
        );
    }

    /// Returns whether the kind exists, and reports a kind that does not.
    fn kind(&mut self, kind: &str, location: impl FnOnce() -> Location) -> bool {
        if self.known.contains(kind) {
            return true;
        }
        let label = match nearest(kind, self.known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "not a kind of resource".to_owned(),
        };
        let help = format!(
            "there are {}; `[provider.NAME]` declares an external kind",
            listed(self.known.iter().copied(), "and")
        );
        self.diagnostic(
            rule::UNKNOWN_KIND,
            location(),
            format!("unknown kind {}", quoted(kind)),
            label,
            help,
        );
        false
    }

    fn options(&mut self, options: &Map<String, Value>, at: &KeyPath<'_>) {
        for (key, value) in options {
            self.option(value, &at.key(key), key);
        }
    }

    fn option(&mut self, value: &Value, at: &KeyPath<'_>, key: &str) {
        match value {
            Value::String(text) => self.plain(text, at, || quoted(key)),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.option(item, &at.index(index), key);
                }
            }
            Value::Object(entries) => self.options(entries, at),
            _ => {}
        }
    }

    /// Checks the text of a table. `at` leads to the table.
    fn texts(&mut self, text: &SessionText<'_>, at: &KeyPath<'_>) {
        for (key, entries) in text.entries() {
            let at = at.key(key);
            for (index, entry) in entries.into_iter().enumerate() {
                self.text(entry, key, &at, index);
            }
        }
    }

    /// Checks an entry of a key of a session table. `at` leads to the key.
    fn text(&mut self, entry: TextEntry<'_>, key: &str, at: &KeyPath<'_>, index: usize) {
        match entry {
            TextEntry::Variable(name, value) => self.variable(name, value, &at.key(name)),
            TextEntry::Section(text) => {
                self.without_nul(text, &at.index(index), || format!("a section of `{key}`"));
            }
            TextEntry::Value(name, value) => self.value(value, key, &at.key(name)),
            TextEntry::File(path, file) => {
                self.without_nul(&file.text, &at.key(path).key("text"), || {
                    format!("the file {}", quoted(path))
                });
            }
            TextEntry::Command(command) => self.command(command, &at.index(index)),
            TextEntry::Condition(condition) => {
                if let Probe::Command(command) = &condition.probe {
                    self.command(command, &at.index(index).key(condition.probe_key()));
                }
            }
            TextEntry::Work(command) => self.command(command, at),
        }
    }

    fn command(&mut self, command: &CommandLine, at: &KeyPath<'_>) {
        match command {
            CommandLine::Shell(line) => self.without_nul(line, at, || "a command".to_owned()),
            CommandLine::Arguments(arguments) => self.arguments(arguments, at),
        }
    }

    fn variable(&mut self, name: &str, value: &str, at: &KeyPath<'_>) {
        self.without_nul(value, at, || quoted(name));
        if let Some((denied, reason)) = denied(name) {
            let message = format!("{} cannot be set for a session", quoted(name));
            let help = format!("`{denied}` is reserved: {reason}");
            let location = at.location().the_key();
            self.diagnostic(rule::RESERVED_VARIABLE, location, message, "choose another name", help);
        }
    }

    fn value(&mut self, value: &Value, key: &str, at: &KeyPath<'_>) {
        match value {
            Value::String(text) => self.without_nul(text, at, || format!("a string of `{key}`")),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(item, key, &at.index(index));
                }
            }
            Value::Object(entries) => {
                for (name, value) in entries {
                    self.value(value, key, &at.key(name));
                }
            }
            _ => {}
        }
    }

    fn arguments(&mut self, arguments: &[String], at: &KeyPath<'_>) {
        if arguments.first().is_some_and(String::is_empty) {
            let message = "a command's program is empty".to_owned();
            self.diagnostic(
                rule::EMPTY_COMMAND,
                at.index(0).location(),
                message,
                "no program",
                "for example: `[\"npm\", \"ci\"]`",
            );
        }
        for (index, argument) in arguments.iter().enumerate() {
            self.without_nul(argument, &at.index(index), || "an argument".to_owned());
        }
    }

    /// Checks text that is passed to other programs line by line: refs, paths, names.
    fn plain(&mut self, text: &str, at: &KeyPath<'_>, what: impl FnOnce() -> String) {
        if let Some((control, c)) = control(text) {
            let message = format!("{} contains the control character {}", what(), quoted(&c.to_string()));
            self.diagnostic(
                rule::UNPRINTABLE,
                at.location().within(control),
                message,
                "a control character",
                "remove it",
            );
        } else if text.trim() != text {
            let kept = text.trim_start();
            let lead = text.len() - kept.len();
            let blank = if lead > 0 { 0..lead } else { kept.trim_end().len()..text.len() };
            let message = format!("{} begins or ends with a blank", what());
            let help = format!("write `\"{}\"`", escaped(text.trim()));
            self.diagnostic(rule::BLANK_AROUND, at.location().within(blank), message, "a blank", help);
        }
    }

    /// Checks text of any form: only NUL is impossible in an environment, an argument or a prompt.
    fn without_nul(&mut self, text: &str, at: &KeyPath<'_>, what: impl FnOnce() -> String) {
        if let Some(position) = text.find('\0') {
            let location = at.location().within(position..position + 1);
            let help = "no environment and no command line can contain it; remove it";
            self.diagnostic(
                rule::UNPRINTABLE,
                location,
                format!("{} contains a NUL character", what()),
                "has a NUL in it",
                help,
            );
        }
    }
}

/// Returns the entries that were not removed, with their positions.
fn present<T>(entries: &[Option<T>]) -> impl Iterator<Item = (usize, &T)> {
    entries.iter().enumerate().filter_map(|(index, entry)| Some((index, entry.as_ref()?)))
}

fn denied(name: &str) -> Option<&'static (&'static str, &'static str)> {
    DENIED.iter().find(|(denied, _)| match denied.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *denied,
    })
}

/// Returns the reason why a session's environment cannot set the variable; `None` if it can.
pub(crate) fn denied_variable(name: &str) -> Option<&'static str> {
    denied(name).map(|(_, reason)| *reason)
}

/// Returns whether `name` can be a variable of a session's environment: `[A-Z_][A-Z0-9_]*`.
pub fn is_variable(name: &str) -> bool {
    let first = name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_');
    first && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

fn control(text: &str) -> Option<(Range<usize>, char)> {
    let (at, c) = text.char_indices().find(|(_, c)| c.is_control())?;
    Some((at..at + c.len_utf8(), c))
}
