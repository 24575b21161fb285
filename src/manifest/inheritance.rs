//! Text that a session has from other tables: from `[defaults.session]`, and from the table of its parent.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Declaration;
use super::diagnostic::{Location, Step};
use super::document::{SESSION, SessionDefaults};
use super::ready::Ready;
use super::session_text::{FILES, READY, SessionText};

/// Content of `[defaults.session]`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DefaultText {
    /// Text for every session; it requests no resources.
    pub declaration: Arc<Declaration>,
    /// `true` if a child without an `inherit` of its own has the text of its parent too.
    pub inherit: bool,
}

impl DefaultText {
    pub(super) fn new(table: &SessionDefaults) -> Self {
        let declaration = Declaration {
            complete: true,
            location: Location::default().key("defaults").key(SESSION),
            resources: None,
            directory: None,
            expires: None,
            text: table.text().into_static(),
            inherited: Inherited::default(),
        };
        Self { declaration: Arc::new(declaration), inherit: table.inherit.unwrap_or(true) }
    }
}

/// Locations of the entries of a session's text, except those of the session's own table that have the same position
/// there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inherited(BTreeMap<(&'static str, Option<Step>), Location>);

/// Entry of a session's text that another table has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InheritedEntry {
    /// Entry as the session has it, such as `env.PORT` or `prompt[0]`.
    pub entry: Location,
    /// Location of the entry in the manifest.
    pub location: Location,
}

impl Declaration {
    /// Returns the location of an entry of the text: of a key, and of a name or number unless the key has only one entry.
    pub(crate) fn locate(&self, key: &'static str, entry: Option<Step>) -> Location {
        let at = (key, entry);
        if let Some(location) = self.inherited.0.get(&at) {
            return location.clone();
        }
        let location = self.location.key(key);
        at.1.map_or_else(|| location.clone(), |step| location.step(step))
    }

    /// Returns the entries of the text that `[defaults.session]` or a session above has.
    pub fn inherited(&self) -> Vec<InheritedEntry> {
        let own = &self.location.steps;
        let others = self.inherited.0.iter().filter(|(_, location)| !location.steps.starts_with(own));
        let entry = |((key, step), location): (&(&'static str, Option<Step>), &Location)| {
            let entry = Location::default().key(key);
            let entry = step.clone().map_or_else(|| entry.clone(), |step| entry.step(step));
            InheritedEntry { entry, location: location.clone() }
        };
        others.map(entry).collect()
    }

    /// Adds the text of another table, which the text of this one completes.
    ///
    /// Entries with a name replace those of the other table, and so do conditions of a port. Paragraphs, commands of `setup`
    /// and other conditions follow those of the other table; commands of `teardown` precede them.
    pub(super) fn inherit(&mut self, base: &Self) {
        let own = std::mem::take(&mut self.text);
        let mut inherited = Inherited::default();
        let mut keep = |key: &'static str, name: &str| {
            let step = Some(Step::key(name));
            inherited.0.insert((key, step.clone()), base.locate(key, step));
        };
        base.text.env.keys().filter(|name| !own.env.contains_key(*name)).for_each(|name| keep("env", name));
        let names = base.text.metadata.keys().filter(|name| !own.metadata.contains_key(*name));
        names.for_each(|name| keep("metadata", name));
        base.text
            .files
            .keys()
            .filter(|path| !own.files.contains_key(*path))
            .for_each(|path| keep(FILES, path));
        if own.command.is_none() && base.text.command.is_some() {
            inherited.0.insert(("command", None), base.locate("command", None));
        }
        let mut list = |key: &'static str, first: (&Self, usize), second: (&Self, usize)| {
            let entries = |(table, count): (&Self, usize)| -> Vec<Location> {
                (0..count).map(|index| table.locate(key, Some(Step::Index(index)))).collect()
            };
            for (index, location) in entries(first).into_iter().chain(entries(second)).enumerate() {
                inherited.0.insert((key, Some(Step::Index(index))), location);
            }
        };
        list("prompt", (base, base.text.prompt.len()), (self, own.prompt.len()));
        list("setup", (base, base.text.setup.len()), (self, own.setup.len()));
        list("teardown", (self, own.teardown.len()), (base, base.text.teardown.len()));
        // A condition of a port replaces that of the other table: it may allow more time.
        let is_kept = |condition: &Ready| {
            let name = condition.port_name();
            name.is_none() || !own.ready.iter().any(|own| own.port_name() == name)
        };
        let kept = base.text.ready.iter().enumerate().filter(|(_, condition)| is_kept(condition));
        let (places, mut ready): (Vec<_>, Vec<_>) = kept
            .map(|(index, condition)| (base.locate(READY, Some(Step::Index(index))), condition.clone()))
            .unzip();
        let own_places = (0..own.ready.len()).map(|index| self.locate(READY, Some(Step::Index(index))));
        ready.extend(own.ready.iter().cloned());
        for (index, location) in places.into_iter().chain(own_places).enumerate() {
            inherited.0.insert((READY, Some(Step::Index(index))), location);
        }
        let base = &base.text;
        let mut env = base.env.clone().into_owned();
        env.extend(own.env.into_owned());
        let mut metadata = base.metadata.clone().into_owned();
        metadata.extend(own.metadata.into_owned());
        let mut files = base.files.clone().into_owned();
        files.extend(own.files.into_owned());
        self.text = SessionText {
            env: Cow::Owned(env),
            files: Cow::Owned(files),
            prompt: Cow::Owned([&*base.prompt, &*own.prompt].concat()),
            metadata: Cow::Owned(metadata),
            setup: Cow::Owned([&*base.setup, &*own.setup].concat()),
            ready: Cow::Owned(ready),
            teardown: Cow::Owned([&*own.teardown, &*base.teardown].concat()),
            command: own.command.or_else(|| base.command.clone()),
        };
        self.inherited = inherited;
    }
}
