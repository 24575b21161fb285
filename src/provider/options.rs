//! Computes the effective options of a request.

use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::manifest::Options;

/// Returns the effective options: `own`, over the inherited options of `parent`, over `defaults`. Omitted options get
/// the defaults of `T`, so that equal requests have equal options. `own_only` are the keys that a child does not
/// inherit.
///
/// Options that do not fit `T` are returned unchanged: planning reports them.
pub(crate) fn effective_options<T: Serialize + DeserializeOwned>(
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

/// Options as a planner reads them. Thousands of sessions have equal options, which are read only once.
pub(crate) struct OptionsCache<T>(Vec<(Arc<Options>, Rc<T>)>);

impl<T> Default for OptionsCache<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: DeserializeOwned> OptionsCache<T> {
    /// Number of options that are kept. Replicas of a table and of its children alternate; a search through more would
    /// cost as much as reading.
    const KEPT: usize = 8;

    /// Reads the options as `T`; an error if they do not fit.
    pub(crate) fn read(&mut self, options: &Arc<Options>) -> Result<Rc<T>, serde_json::Error> {
        // Equal options are usually the same object.
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
