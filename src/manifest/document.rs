//! Manifest as written by users: the types from which the JSON schema of manifests is derived.
//!
//! Editors show the doc comments on the fields.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::{Map, Value};

use super::lifetime::EXPIRES_PATTERN;
use super::ready::{After, Probe, Ready, WITHIN_PATTERN, Within};
use super::session_file::{SessionFile, comment_of};
use super::session_text::SessionText;
use super::{CommandLine, From, Program};
use crate::name::NAME_PATTERN;

/// Pattern of a variable's name in `env`.
pub(super) const ENV_PATTERN: &str = "^[A-Z_][A-Z0-9_]*$";

/// Pattern of a length of time.
pub(crate) const AGE_PATTERN: &str = "^[0-9]{1,6}[smhdw]$";

/// Maximum number of replicas of one table: a thousand times the largest swarm seen, and still planned within a second.
pub(super) const COUNT_MAX: u32 = 10_000;

/// Maximum number of shards of a fleet, and of its spares.
const SHARDS_MAX: u32 = 10_000;

/// A swarm of sessions, each with the git worktree and the ports it works with.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "a seedbed manifest")]
pub(super) struct Document {
    /// The version of the manifest format: `1`.
    #[schemars(extend("const" = 1, "examples" = [1]))]
    #[expect(dead_code, reason = "checked before anything else is read, and by the schema")]
    pub(super) version: u32,
    /// Name of the swarm, unique on this host: letters, digits, `.`, `_` and `-`, at most 63. Every session id begins
    /// with it (`SWARM/PATH`).
    #[schemars(with = "Name", extend("examples" = ["checkout"]))]
    pub(super) swarm: String,
    /// Repository that the swarm works on.
    #[serde(default)]
    pub(super) workspace: Workspace,
    /// Repositories beside the workspace's own: `[repository.NAME]` is the one that `repository = "NAME"` of a
    /// `git-worktree` names.
    #[serde(default)]
    #[schemars(with = "BTreeMap<Name, Repository>")]
    pub(super) repository: BTreeMap<String, Repository>,
    /// Time after which each session has expired, for sessions without an `expires` of their own. Default: `"never"`.
    #[schemars(regex(pattern = EXPIRES_PATTERN), extend("examples" = ["2w"]))]
    pub(super) expires: Option<String>,
    /// Hosts that the sessions are distributed over, for `seedbed fleet`.
    pub(super) fleet: Option<FleetTable>,
    /// Default options of a kind, for every session that requests it, e.g. `[defaults.git-worktree]`. The options of an
    /// entry of `resources` take precedence. `[defaults.session]` is text for every session.
    #[serde(default)]
    pub(super) defaults: Defaults,
    /// Programs of external kinds: `[provider.NAME]` names the program that plans and creates resources of kind NAME.
    #[serde(default)]
    #[schemars(with = "BTreeMap<Name, Provider>")]
    pub(super) provider: BTreeMap<String, Provider>,
    /// Sessions at the top of the tree: `[session.NAME]`. Their children are `[session.NAME.child.NAME]`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<Name, SessionTable>")]
    pub(super) session: BTreeMap<String, SessionTable>,
}

/// Hosts that the sessions are distributed over. Other commands than `seedbed fleet` ignore them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "`fleet`", rename = "fleet")]
pub(super) struct FleetTable {
    /// Number of shards, 1 to 10000. Each is the part of one host. Default: one for each host that is no spare.
    #[schemars(range(min = 1, max = SHARDS_MAX), extend("examples" = [4]))]
    pub(super) shards: Option<u32>,
    /// Number of hosts without a shard, 0 to 10000, which can take the place of lost ones. Default: 0.
    #[schemars(range(max = SHARDS_MAX), extend("examples" = [1]))]
    pub(super) spares: Option<u32>,
}

/// Defaults: `[defaults.session]`, and the options of each kind.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    pub(super) session: Option<SessionDefaults>,
    /// Default options by kind.
    pub(super) kinds: BTreeMap<String, Map<String, Value>>,
}

/// Key of [`SessionDefaults`] in `defaults`, which no kind can have as its name.
pub(super) const SESSION: &str = "session";

impl<'de> Deserialize<'de> for Defaults {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut kinds = BTreeMap::<String, Map<String, Value>>::deserialize(deserializer)?;
        let session = kinds.remove(SESSION).map(|table| serde_json::from_value(Value::Object(table)));
        Ok(Self { session: session.transpose().map_err(D::Error::custom)?, kinds })
    }
}

impl JsonSchema for Defaults {
    fn schema_name() -> Cow<'static, str> {
        "defaults".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// The options of the kinds are added later, see `schema::schema`.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let session = generator.subschema_for::<SessionDefaults>();
        json_schema!({ "type": "object", "properties": { SESSION: session } })
    }
}

/// Text for every session, which the session's own table completes.
///
/// An array entry is `None` if a wrong entry was removed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[schemars(
    title = "`session`",
    rename = "session-defaults",
    description = "Text for every session, which the session's own table completes."
)]
pub(super) struct SessionDefaults {
    /// `true` if a child has the text of its parent too, unless its own table has `inherit = false`. Default: `true`.
    pub(super) inherit: Option<bool>,
    /// Environment variables. Those of a session's own table take precedence.
    #[schemars(with = "BTreeMap<EnvName, EnvValue>")]
    pub(super) env: BTreeMap<String, String>,
    /// Paragraphs for the agent's prompt, before those of a session's own table.
    #[schemars(extend("examples" = [["Commit early."]]))]
    #[schemars(with = "Vec<String>")]
    pub(super) prompt: Vec<Option<String>>,
    /// Additional data for the discovery file. The keys of a session's own table take precedence.
    pub(super) metadata: Map<String, Value>,
    /// Files in the directory of the session, by path. Those of a session's own table take precedence.
    pub(super) files: BTreeMap<String, FileEntry>,
    /// Commands to run in the session after its resources are provisioned, before those of a session's own table.
    #[schemars(extend("examples" = [[["npm", "ci"]]]))]
    #[schemars(with = "Vec<Command>")]
    pub(super) setup: Vec<Option<Command>>,
    /// Conditions under which a session is ready, before those of its own table, whose port replaces the same port here.
    #[schemars(extend("examples" = [[{ "port": "http", "within": "30s" }]]))]
    #[schemars(with = "Vec<ReadyTable>")]
    pub(super) ready: Vec<Option<ReadyTable>>,
    /// Commands to run in the session before its resources are released, after those of a session's own table.
    #[schemars(extend("examples" = [[["docker", "compose", "down"]]]))]
    #[schemars(with = "Vec<Command>")]
    pub(super) teardown: Vec<Option<Command>>,
    /// Command that works in the session, unless the session's own table has one.
    pub(super) command: Option<Command>,
}

impl SessionDefaults {
    /// Returns the text of the table; an entry that was wrong and removed is empty.
    pub(super) fn text(&self) -> SessionText<'_> {
        let Self { inherit: _, env, prompt, metadata, files, setup, ready, teardown, command } = self;
        text(env, prompt, (metadata, files), (setup, teardown), (ready, command.as_ref()))
    }
}

/// Repository that the swarm works on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "`workspace`")]
pub(super) struct Workspace {
    /// Path of the repository, relative to the manifest's directory. Default: `"."`, the manifest's directory.
    #[schemars(extend("examples" = [".", ".."]))]
    pub(super) root: Option<String>,
}

/// Repository beside the workspace's own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "a repository")]
pub(super) struct Repository {
    /// Path of the repository: the top of its work tree, relative to the manifest's directory.
    #[schemars(extend("examples" = ["../web"]))]
    pub(super) root: String,
}

/// External kind of resource.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "a provider")]
pub(super) struct Provider {
    /// Program and its arguments, run without a shell, in the workspace root. A program name with a slash is relative
    /// to the root. The program reads one JSON object from stdin and writes one to stdout; `plan` runs it too.
    #[schemars(length(min = 1), extend("examples" = [["./tools/database-provider"]]))]
    pub(super) command: Vec<String>,
    /// Time limit of one operation of the program, in seconds, 1 to 3600. Default: 60.
    #[schemars(range(min = 1, max = 3600), extend("examples" = [60]))]
    pub(super) timeout: Option<u32>,
    /// Set it to `true` if `provision` takes something that other swarms may take first, such as a database of a pool.
    /// It then runs for all sessions, one after another, before any worktree is created. Default: `false`.
    pub(super) claim: Option<bool>,
    /// File with the JSON schema of the kind's options, relative to the workspace root. `validate` checks options by it.
    #[schemars(length(min = 1), extend("examples" = ["tools/database.schema.json"]))]
    pub(super) schema: Option<PathBuf>,
}

impl Provider {
    pub(super) fn program(self) -> Program {
        Program {
            command: self.command,
            timeout: self.timeout.unwrap_or(Program::TIMEOUT),
            claim: self.claim.unwrap_or(false),
            schema: self.schema,
        }
    }
}

/// One session, or with `count` as many alike.
///
/// An array entry is `None` if a wrong entry was removed, so that the other entries can still be checked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(
    title = "a session",
    rename = "session",
    description = "One session, or with `count` as many alike."
)]
pub(super) struct SessionTable {
    /// Number of sessions to create from this table, 1 to 10000; their names are NAME-0, NAME-1 and so on. Each gets
    /// the table's children. Default: one session, named NAME.
    #[schemars(range(min = 1, max = COUNT_MAX), extend("examples" = [4]))]
    pub(super) count: Option<u32>,
    /// Shard of `seedbed fleet` that has the session with all below it, from 0. Only at the top. Default: the shard that
    /// balances the fleet.
    #[schemars(range(max = SHARDS_MAX - 1), extend("examples" = [2]))]
    pub(super) shard: Option<u32>,
    /// Resources of the session, each the name of a kind, or a table with `kind` and its options. `[]` requests
    /// nothing. Default: nothing at the top; in a child, a share of everything that its parent has.
    #[schemars(extend("examples" = [["git-worktree", "port-range"]]))]
    #[schemars(with = "Option<Vec<Resource>>")]
    pub(super) resources: Option<Vec<Option<Resource>>>,
    /// Name of the resource in whose directory the session works and finds its discovery file. Default: the worktree;
    /// with several worktrees, the directory that contains them.
    #[schemars(regex(pattern = NAME_PATTERN), extend("examples" = ["web"]))]
    pub(super) directory: Option<String>,
    /// Time from the creation of the session after which it has expired: a number and `m`, `h`, `d` or `w`, or `"never"`.
    /// It only marks: `seedbed status` and `list` show expired sessions, and `seedbed destroy --where expired` releases
    /// them. Default: `expires` of the parent; at the top of the tree, that of the manifest.
    #[schemars(regex(pattern = EXPIRES_PATTERN), extend("examples" = ["3d"]))]
    pub(super) expires: Option<String>,
    /// `true` if the session has the text of its parent too: `env`, `prompt`, `metadata`, `files`, `setup`, `ready`,
    /// `teardown` and `command`, as far as its own table does not replace it. Only in a child. Default: `inherit` of `[defaults.session]`, and
    /// `false` without that table.
    pub(super) inherit: Option<bool>,
    /// `false` if `[defaults.session]` does not apply. Default: `true`.
    pub(super) defaults: Option<bool>,
    /// Environment variables. Values are templates: `"http://localhost:{{ port.http }}"`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<EnvName, EnvValue>")]
    pub(super) env: BTreeMap<String, String>,
    /// Paragraphs for the agent's prompt, each a template.
    #[serde(default)]
    #[schemars(extend("examples" = [["You review what the coders write."]]))]
    #[schemars(with = "Vec<String>")]
    pub(super) prompt: Vec<Option<String>>,
    /// Additional data for the discovery file. Strings are templates.
    #[serde(default)]
    pub(super) metadata: Map<String, Value>,
    /// Files in the directory of the session, by path: each a template, or a table that names one. Git does not see them.
    #[serde(default)]
    pub(super) files: BTreeMap<String, FileEntry>,
    /// Commands to run in the session after its resources are provisioned. Default: none.
    #[serde(default)]
    #[schemars(extend("examples" = [[["npm", "ci"]]]))]
    #[schemars(with = "Vec<Command>")]
    pub(super) setup: Vec<Option<Command>>,
    /// Conditions under which the session is ready: `apply`, `run` and `start` wait for them. Default: none.
    #[serde(default)]
    #[schemars(extend("examples" = [[{ "port": "http", "within": "30s" }]]))]
    #[schemars(with = "Vec<ReadyTable>")]
    pub(super) ready: Vec<Option<ReadyTable>>,
    /// Commands to run in the session before its resources are released. Default: none.
    #[serde(default)]
    #[schemars(extend("examples" = [[["docker", "compose", "down"]]]))]
    #[schemars(with = "Vec<Command>")]
    pub(super) teardown: Vec<Option<Command>>,
    /// Command that works in the session, such as an agent or a test: a line for `sh`, or a list of arguments.
    /// `seedbed start` runs it. It is a template, and `prompt` is the composed prompt in it. Default: none.
    #[schemars(extend("examples" = [["my-agent", "--prompt", "{{ prompt }}"]]))]
    pub(super) command: Option<Command>,
    /// Sessions below this one: `[session.NAME.child.NAME]`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<Name, SessionTable>")]
    pub(super) child: BTreeMap<String, SessionTable>,
}

impl SessionTable {
    /// Returns the text of the table; an entry that was wrong and removed is empty.
    pub(super) fn text(&self) -> SessionText<'_> {
        let commands = (&*self.setup, &*self.teardown);
        let work = (&*self.ready, self.command.as_ref());
        text(&self.env, &self.prompt, (&self.metadata, &self.files), commands, work)
    }
}

/// Returns the text of a table.
fn text<'t>(
    env: &'t BTreeMap<String, String>,
    prompt: &[Option<String>],
    (metadata, files): (&'t Map<String, Value>, &BTreeMap<String, FileEntry>),
    (setup, teardown): (&[Option<Command>], &[Option<Command>]),
    (ready, command): (&[Option<ReadyTable>], Option<&'t Command>),
) -> SessionText<'t> {
    let line = |command: &Option<Command>| match command {
        Some(command) => command.0.clone(),
        None => CommandLine::Shell(String::new()),
    };
    SessionText {
        env: Cow::Borrowed(env),
        prompt: Cow::Owned(prompt.iter().map(|section| section.clone().unwrap_or_default()).collect()),
        metadata: Cow::Borrowed(metadata),
        files: Cow::Owned(files.iter().map(|(path, entry)| (path.clone(), entry.file(path))).collect()),
        setup: Cow::Owned(setup.iter().map(line).collect()),
        ready: Cow::Owned(ready.iter().map(|table| condition(table.as_ref())).collect()),
        teardown: Cow::Owned(teardown.iter().map(line).collect()),
        command: command.map(|command| Cow::Borrowed(&command.0)),
    }
}

/// One entry of `resources`: a kind's name, or a table `{ kind, name, from, ..options }`.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) kind: String,
    /// `None` if the resource has the name of its kind.
    pub(super) name: Option<String>,
    /// `None` if the entry has no `from`: the default depends on the session's position in the tree.
    pub(super) from: Option<From>,
    pub(super) options: Map<String, Value>,
}

impl Resource {
    /// Returns the name of the resource.
    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.kind)
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut options = match Value::deserialize(deserializer)? {
            Value::String(kind) => return Ok(Self { kind, name: None, from: None, options: Map::new() }),
            Value::Object(options) => options,
            _ => return Err(D::Error::custom("a resource is a string or a table")),
        };
        let Some(Value::String(kind)) = options.remove("kind") else {
            return Err(D::Error::custom("a resource needs a `kind`"));
        };
        let name = match options.remove("name") {
            None => None,
            Some(Value::String(name)) => Some(name),
            Some(_) => return Err(D::Error::custom("`name` is a string")),
        };
        let from = match options.remove("from") {
            None => None,
            Some(Value::String(from)) if from == "parent" => Some(From::Parent),
            Some(Value::String(from)) if from == "pool" => Some(From::Pool),
            Some(_) => return Err(D::Error::custom("`from` is \"parent\" or \"pool\"")),
        };
        Ok(Self { kind, name, from, options })
    }
}

impl JsonSchema for Resource {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "resource".into()
    }

    /// Placeholder: the valid forms of an entry depend on the kinds, see `schema::resource`.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({})
    }
}

/// One entry of `setup` or `teardown`.
#[derive(Debug)]
pub(super) struct Command(pub(super) CommandLine);

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(line) => Ok(Self(CommandLine::Shell(line))),
            Value::Array(arguments) => {
                let argument = |value| match value {
                    Value::String(text) => Ok(text),
                    _ => Err(D::Error::custom("an argument is a string")),
                };
                let arguments = arguments.into_iter().map(argument).collect::<Result<_, _>>()?;
                Ok(Self(CommandLine::Arguments(arguments)))
            }
            _ => Err(D::Error::custom("a command is a string or an array of strings")),
        }
    }
}

/// A command as manifests have it, for options of kinds: `#[serde(with = "written_command")]`.
pub(crate) mod written_command {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::{Command, CommandLine};

    pub(crate) fn serialize<S: Serializer>(command: &CommandLine, serializer: S) -> Result<S::Ok, S::Error> {
        match command {
            CommandLine::Shell(line) => line.serialize(serializer),
            CommandLine::Arguments(arguments) => arguments.serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CommandLine, D::Error> {
        Command::deserialize(deserializer).map(|Command(command)| command)
    }
}

impl JsonSchema for Command {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "command".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "a command",
            "description": "An array of arguments is run without a shell; a string is run by `sh -c`. Strings are \
                            templates.",
            "examples": [["npm", "ci"]],
            "anyOf": [
                { "type": "array", "minItems": 1, "items": { "type": "string", "examples": ["ci"] } },
                { "type": "string", "minLength": 1 },
            ],
        })
    }
}

/// Entry of `ready`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(
    title = "a condition",
    rename = "ready-table",
    description = "Condition under which a session is ready: a port that is served, or a command that succeeds."
)]
pub(super) struct ReadyTable {
    /// Name of a port of the session on which a process has to listen (TCP). Either this or `command`.
    #[schemars(extend("examples" = ["http"]))]
    pub(super) port: Option<String>,
    /// Command that has to exit with code 0 in the session: a line for `sh`, or a list of arguments. It is repeated until it
    /// does. Either this or `port`.
    pub(super) command: Option<Command>,
    /// Time after which the wait fails: a number and `ms`, `s` or `m`. Default: `"30s"`.
    #[schemars(regex(pattern = WITHIN_PATTERN), extend("examples" = ["30s"]))]
    pub(super) within: Option<String>,
    /// Commands that bring the session up: `"setup"`, after which `apply` and `run` wait, or `"command"`, after whose begin
    /// `start` waits. Default: `"command"` in a session that has one, and `"setup"` in any other.
    pub(super) after: Option<After>,
}

/// Returns the condition of an entry of `ready`; an empty one if the entry was wrong.
fn condition(table: Option<&ReadyTable>) -> Ready {
    let probe = match table.map(|table| (&table.port, &table.command)) {
        Some((Some(port), _)) => Probe::Port { name: port.clone(), number: 0 },
        Some((None, Some(command))) => Probe::Command(command.0.clone()),
        Some((None, None)) | None => Probe::Command(CommandLine::Shell(String::new())),
    };
    let within = table.and_then(|table| Within::try_from(table.within.clone()?).ok()).unwrap_or_default();
    Ready { probe, within, after: table.and_then(|table| table.after) }
}

/// Value of `files`: a template, or a table.
#[derive(Debug)]
pub(super) struct FileEntry(pub(super) FileTable);

/// Table that describes a file of a session.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[schemars(
    title = "a file",
    rename = "file-table",
    description = "Table that describes a file of a session."
)]
pub(super) struct FileTable {
    /// Content, a template. Either this or `template-file`.
    #[schemars(extend("examples" = ["PORT={{ port.http }}\n"]))]
    pub(super) text: Option<String>,
    /// Path of a file in the workspace that has the template, relative to the workspace root, at most 64 KiB long.
    #[schemars(length(min = 1), extend("examples" = ["dev/compose.override.yaml.j2"]))]
    pub(super) template_file: Option<String>,
    /// Part of the file that the text is. Default: `"whole"`.
    pub(super) mode: Option<FileMode>,
    /// Comment marker of the lines around a section, with a blank between begin and end if it has both: `"<!-- -->"`. Default:
    /// that of the language, by the name of the file, and `#` for others.
    #[schemars(length(min = 1), extend("examples" = ["#"]))]
    pub(super) comment: Option<String>,
}

/// Part of a file that seedbed writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "file-mode")]
pub(super) enum FileMode {
    /// The whole file.
    Whole,
    /// A section between two lines that mark it. The rest of the file belongs to the session.
    Section,
}

impl FileEntry {
    /// Returns the file at this path.
    pub(super) fn file(&self, path: &str) -> SessionFile {
        let FileTable { text, template_file, mode, comment } = &self.0;
        let is_section = *mode == Some(FileMode::Section);
        let comment = || comment.clone().unwrap_or_else(|| comment_of(path).unwrap_or("#").to_owned());
        SessionFile {
            text: text.clone().unwrap_or_default(),
            comment: is_section.then(comment),
            template_file: template_file.clone(),
        }
    }
}

impl<'de> Deserialize<'de> for FileEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(FileTable { text: Some(text), ..FileTable::default() })),
            table => serde_json::from_value(table).map(Self).map_err(D::Error::custom),
        }
    }
}

impl JsonSchema for FileEntry {
    fn schema_name() -> Cow<'static, str> {
        "file".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<FileTable>();
        json_schema!({
            "title": "a file",
            "description": "The content of the file, a template, or a table.",
            "examples": ["PORT={{ port.http }}\n"],
            "anyOf": [{ "type": "string", "examples": ["PORT={{ port.http }}\n"] }, table],
        })
    }
}

/// Schema of a name; the manifest's names are plain strings.
struct Name;

impl JsonSchema for Name {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "name".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": NAME_PATTERN })
    }
}

/// Schema of a variable's name.
struct EnvName;

impl JsonSchema for EnvName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "env-name".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": ENV_PATTERN })
    }
}

/// Schema of a variable's value.
struct EnvValue;

impl JsonSchema for EnvValue {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "env-value".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["http://localhost:{{ port.http }}"] })
    }
}
