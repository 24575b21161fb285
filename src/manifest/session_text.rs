//! Text of a session table: environment, prompt, metadata and commands.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::CommandLine;
use super::diagnostic::{Location, Step};
use super::ready::{After, Probe, Ready};
use super::session_file::SessionFile;

/// Key of a session table whose values are files.
pub(crate) const FILES: &str = "files";

/// Key of a session table whose values are conditions.
pub(crate) const READY: &str = "ready";

/// Text of a session table, everything except its resources: templates in a manifest, rendered text in a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SessionText<'t> {
    /// Environment variables, by name.
    pub env: Cow<'t, BTreeMap<String, String>>,
    /// Sections of the prompt.
    pub prompt: Cow<'t, [String]>,
    /// Additional values for the discovery file.
    pub metadata: Cow<'t, Map<String, Value>>,
    /// Files in the directory of the session, by path relative to it.
    #[serde(skip_serializing_if = "has_none")]
    pub files: Cow<'t, BTreeMap<String, SessionFile>>,
    /// Commands to run after provisioning.
    pub setup: Cow<'t, [CommandLine]>,
    /// Conditions under which the session is ready.
    #[serde(skip_serializing_if = "has_no_condition")]
    pub ready: Cow<'t, [Ready]>,
    /// Commands to run before release.
    pub teardown: Cow<'t, [CommandLine]>,
    /// Command that works in the session, which `seedbed start` runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Cow<'t, CommandLine>>,
}

/// Returns whether there are no files.
#[expect(clippy::ptr_arg, reason = "serde passes the field")]
fn has_none(files: &Cow<'_, BTreeMap<String, SessionFile>>) -> bool {
    files.is_empty()
}

/// Returns whether there are no conditions.
#[expect(clippy::ptr_arg, reason = "serde passes the field")]
fn has_no_condition(ready: &Cow<'_, [Ready]>) -> bool {
    ready.is_empty()
}

/// One entry of a session's text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TextEntry<'t> {
    /// Name and value of a variable.
    Variable(&'t str, &'t str),
    /// Section of the prompt.
    Section(&'t str),
    /// Name and value of an entry of the metadata.
    Value(&'t str, &'t Value),
    /// Path and content of a file.
    File(&'t str, &'t SessionFile),
    /// Command of `setup` or `teardown`.
    Command(&'t CommandLine),
    /// Condition under which the session is ready.
    Condition(&'t Ready),
    /// The command that works in the session.
    Work(&'t CommandLine),
}

/// Function that returns the location of an entry of a session's text: of a key, and of a name or number unless the key has
/// only one entry.
pub(crate) type Locate<'l> = dyn Fn(&'static str, Option<Step>) -> Location + 'l;

/// Function that receives a string and its location, and returns the replacement of the string.
pub(crate) type Replace<'f, 's> = dyn FnMut(&'s str, &dyn Fn() -> Location) -> String + 'f;

/// Function that receives a string and its location.
pub(crate) type Visit<'f, 's> = dyn FnMut(&'s str, &dyn Fn() -> Location) + 'f;

impl SessionText<'_> {
    /// Returns all entries, by key of the session table.
    pub(crate) fn entries(&self) -> [(&'static str, Vec<TextEntry<'_>>); 8] {
        let variables = self.env.iter().map(|(name, value)| TextEntry::Variable(name, value));
        let values = self.metadata.iter().map(|(name, value)| TextEntry::Value(name, value));
        let files = self.files.iter().map(|(path, file)| TextEntry::File(path, file));
        [
            ("env", variables.collect()),
            ("prompt", self.prompt.iter().map(|section| TextEntry::Section(section)).collect()),
            ("metadata", values.collect()),
            (FILES, files.collect()),
            ("setup", self.setup.iter().map(TextEntry::Command).collect()),
            (READY, self.ready.iter().map(TextEntry::Condition).collect()),
            ("teardown", self.teardown.iter().map(TextEntry::Command).collect()),
            ("command", self.command.as_deref().into_iter().map(TextEntry::Work).collect()),
        ]
    }

    /// Returns the text with each string replaced by `replace`, without `command`, whose templates have more names. A
    /// location is computed only on request.
    pub(crate) fn map<'s>(
        &'s self,
        locate: &Locate<'_>,
        replace: &mut Replace<'_, 's>,
    ) -> SessionText<'static> {
        let env = self.env.iter();
        let env = env
            .map(|(name, value)| (name.clone(), replace(value, &|| locate("env", Some(Step::key(name))))))
            .collect();
        let prompt = self.prompt.iter().enumerate();
        let prompt = prompt
            .map(|(index, section)| replace(section, &|| locate("prompt", Some(Step::Index(index)))))
            .collect();
        let metadata = self.metadata.iter();
        let metadata = metadata.map(|(key, value)| {
            let at = || locate("metadata", Some(Step::key(key)));
            (key.clone(), map_strings(value, &at, &mut *replace))
        });
        let metadata = metadata.collect();
        let files = self.files.iter().map(|(path, file)| {
            let at = || locate(FILES, Some(Step::key(path))).key(file.source_key());
            let (text, comment) = (replace(&file.text, &at), file.comment.clone());
            (path.clone(), SessionFile { text, comment, template_file: None })
        });
        let files = files.collect();
        let ready = self.ready.iter().enumerate();
        let ready = ready.map(|(index, condition)| {
            let at = || locate(READY, Some(Step::Index(index))).key(condition.probe_key());
            self.map_condition(condition, &at, &mut *replace)
        });
        let ready = ready.collect();
        SessionText {
            env: Cow::Owned(env),
            prompt: Cow::Owned(prompt),
            metadata: Cow::Owned(metadata),
            files: Cow::Owned(files),
            setup: Cow::Owned(map_commands(&self.setup, "setup", locate, replace)),
            ready: Cow::Owned(ready),
            teardown: Cow::Owned(map_commands(&self.teardown, "teardown", locate, replace)),
            command: None,
        }
    }

    /// Returns a condition with each string of its command replaced by `replace`. Without `after`, `command` brings a session
    /// up that has one.
    fn map_condition<'s>(
        &self,
        condition: &'s Ready,
        location: &dyn Fn() -> Location,
        replace: &mut Replace<'_, 's>,
    ) -> Ready {
        let probe = match &condition.probe {
            Probe::Command(command) => Probe::Command(map_command(command, location, replace)),
            port @ Probe::Port { .. } => port.clone(),
        };
        let default = if self.command.is_some() { After::Command } else { After::Setup };
        Ready { probe, within: condition.within.clone(), after: condition.after.or(Some(default)) }
    }

    /// Returns `command` with each string replaced by `replace`.
    pub(crate) fn map_command<'s>(
        &'s self,
        locate: &Locate<'_>,
        replace: &mut Replace<'_, 's>,
    ) -> Option<CommandLine> {
        self.command.as_deref().map(|command| map_command(command, &|| locate("command", None), replace))
    }

    /// Calls `see` for each string of the text. A location is computed only on request.
    pub(crate) fn visit<'s>(&'s self, locate: &Locate<'_>, see: &mut Visit<'_, 's>) {
        for (key, entries) in self.entries() {
            for (index, entry) in entries.into_iter().enumerate() {
                let at = || locate(key, entry.step(index));
                match entry {
                    TextEntry::Variable(_, text) | TextEntry::Section(text) => see(text, &at),
                    TextEntry::Value(_, value) => visit_strings(value, &at, see),
                    TextEntry::File(_, file) => see(&file.text, &|| at().key(file.source_key())),
                    TextEntry::Command(command) | TextEntry::Work(command) => {
                        visit_command(command, &at, see);
                    }
                    TextEntry::Condition(condition) => {
                        if let Probe::Command(command) = &condition.probe {
                            visit_command(command, &|| at().key(condition.probe_key()), see);
                        }
                    }
                }
            }
        }
    }

    /// Returns the text without its borrows; only what is borrowed is copied.
    pub(crate) fn into_static(self) -> SessionText<'static> {
        let Self { env, prompt, metadata, files, setup, ready, teardown, command } = self;
        SessionText {
            env: Cow::Owned(env.into_owned()),
            prompt: Cow::Owned(prompt.into_owned()),
            metadata: Cow::Owned(metadata.into_owned()),
            files: Cow::Owned(files.into_owned()),
            setup: Cow::Owned(setup.into_owned()),
            ready: Cow::Owned(ready.into_owned()),
            teardown: Cow::Owned(teardown.into_owned()),
            command: command.map(|command| Cow::Owned(command.into_owned())),
        }
    }

    /// Returns the text in the form of a manifest's session table.
    pub(crate) fn to_table(&self) -> Map<String, Value> {
        let value = |entries: Vec<TextEntry<'_>>| {
            if let [work @ TextEntry::Work(_)] = &entries[..] {
                return work.value();
            }
            let named = |entry: &TextEntry<'_>| Some((entry.name()?.to_owned(), entry.value()));
            match entries.iter().map(named).collect::<Option<Map<_, _>>>() {
                Some(named) => Value::Object(named),
                None => entries.iter().map(TextEntry::value).collect(),
            }
        };
        let entries = self.entries().into_iter().filter(|(_, entries)| !entries.is_empty());
        entries.map(|(key, entries)| (key.to_owned(), value(entries))).collect()
    }
}

impl<'t> TextEntry<'t> {
    /// Returns the name of the entry; `None` if the entry is identified by its number.
    pub(crate) fn name(&self) -> Option<&'t str> {
        match self {
            Self::Variable(name, _) | Self::Value(name, _) | Self::File(name, _) => Some(name),
            Self::Section(_) | Self::Command(_) | Self::Condition(_) | Self::Work(_) => None,
        }
    }

    /// Returns the step from the entry's key to the entry, which is the one at `index`; `None` if the key has only one
    /// entry.
    pub(crate) fn step(&self, index: usize) -> Option<Step> {
        match self {
            Self::Variable(name, _) | Self::Value(name, _) | Self::File(name, _) => Some(Step::key(name)),
            Self::Section(_) | Self::Command(_) | Self::Condition(_) => Some(Step::Index(index)),
            Self::Work(_) => None,
        }
    }

    /// Returns the value of the entry in the form of a manifest.
    pub(crate) fn value(&self) -> Value {
        match self {
            Self::Variable(_, text) | Self::Section(text) => (*text).into(),
            Self::Value(_, value) => (*value).clone(),
            Self::File(_, file) => file.to_table(),
            Self::Condition(condition) => condition.to_table(),
            Self::Command(CommandLine::Shell(line)) | Self::Work(CommandLine::Shell(line)) => {
                line.as_str().into()
            }
            Self::Command(CommandLine::Arguments(arguments))
            | Self::Work(CommandLine::Arguments(arguments)) => arguments.clone().into(),
        }
    }

    /// Returns the value of the entry in a readable form.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Variable(_, text) | Self::Section(text) => (*text).to_owned(),
            Self::Command(CommandLine::Shell(line)) | Self::Work(CommandLine::Shell(line)) => line.clone(),
            Self::File(_, file) => file.text.clone(),
            Self::Condition(condition) => {
                let after = condition.after.map(|after| format!(" after `{after}`")).unwrap_or_default();
                format!("{condition} within {}{after}", condition.within)
            }
            Self::Value(..) | Self::Command(_) | Self::Work(_) => self.value().to_string(),
        }
    }
}

/// Calls `see` for each string of a command. A location is computed only on request.
fn visit_command<'s>(command: &'s CommandLine, location: &dyn Fn() -> Location, see: &mut Visit<'_, 's>) {
    match command {
        CommandLine::Shell(line) => see(line, location),
        CommandLine::Arguments(arguments) => {
            for (argument, text) in arguments.iter().enumerate() {
                see(text, &|| location().index(argument));
            }
        }
    }
}

/// Calls `see` for each string of a value.
fn visit_strings<'v>(value: &'v Value, location: &dyn Fn() -> Location, see: &mut Visit<'_, 'v>) {
    match value {
        Value::String(text) => see(text, location),
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                visit_strings(value, &|| location().index(index), see);
            }
        }
        Value::Object(values) => {
            for (key, value) in values {
                visit_strings(value, &|| location().key(key), see);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Returns a value with each string replaced by `replace`. A location is computed only on request.
pub(crate) fn map_strings<'v>(
    value: &'v Value,
    location: &dyn Fn() -> Location,
    replace: &mut Replace<'_, 'v>,
) -> Value {
    match value {
        Value::String(text) => replace(text, location).into(),
        Value::Array(values) => {
            let values = values.iter().enumerate();
            values
                .map(|(index, value)| map_strings(value, &|| location().index(index), &mut *replace))
                .collect()
        }
        Value::Object(values) => {
            let values = values.iter();
            let values = values.map(|(key, value)| {
                (key.clone(), map_strings(value, &|| location().key(key), &mut *replace))
            });
            Value::Object(values.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn map_commands<'s>(
    commands: &'s [CommandLine],
    key: &'static str,
    locate: &Locate<'_>,
    replace: &mut Replace<'_, 's>,
) -> Vec<CommandLine> {
    let commands = commands.iter().enumerate();
    commands
        .map(|(index, command)| {
            map_command(command, &|| locate(key, Some(Step::Index(index))), &mut *replace)
        })
        .collect()
}

fn map_command<'s>(
    command: &'s CommandLine,
    location: &dyn Fn() -> Location,
    replace: &mut Replace<'_, 's>,
) -> CommandLine {
    match command {
        CommandLine::Shell(line) => CommandLine::Shell(replace(line, location)),
        CommandLine::Arguments(arguments) => {
            let arguments = arguments.iter().enumerate();
            let argument = |(at, text): (usize, &'s String)| replace(text, &|| location().index(at));
            CommandLine::Arguments(arguments.map(argument).collect())
        }
    }
}
