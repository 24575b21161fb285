//! Values of variables that templates of other sessions use, such as `sessions['PATH'].env.NAME`.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError, RwLock};

/// Variable of a session's table: position of the session in the manifest, and name.
pub(super) type Variable = (usize, String);

/// Result of rendering a variable.
#[derive(Clone, Debug)]
pub(super) enum RenderedVariable {
    /// The value.
    Value(String),
    /// No value, because of a diagnostic at the variable's own location.
    Failed,
}

/// Rendered variables.
#[derive(Debug, Default)]
pub(super) struct RenderedVariables(RwLock<HashMap<Variable, RenderedVariable>>);

impl RenderedVariables {
    /// Returns the result of a variable; `None` if it is not rendered yet.
    pub(super) fn get(&self, variable: &Variable) -> Option<RenderedVariable> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(variable).cloned()
    }

    /// Returns whether a variable is rendered, or has no value.
    pub(super) fn contains(&self, variable: &Variable) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains_key(variable)
    }

    /// Sets the value of a variable; `None` if it has failed.
    pub(super) fn insert(&self, variable: Variable, value: Option<String>) {
        let result = value.map_or(RenderedVariable::Failed, RenderedVariable::Value);
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(variable, result);
    }
}

/// Variables that one rendering could not use.
#[derive(Debug, Default)]
pub(super) struct MissingVariables {
    /// Variables that are not rendered yet.
    pub(super) unrendered: BTreeSet<Variable>,
    /// `true` if the rendering used a variable that has no value.
    pub(super) has_failed: bool,
}

/// Collector of the missing variables while templates are rendered.
#[derive(Debug, Default)]
pub(super) struct Missing(Mutex<MissingVariables>);

impl Missing {
    /// Adds a variable that is not rendered yet.
    pub(super) fn add(&self, variable: Variable) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).unrendered.insert(variable);
    }

    /// Records the use of a variable that has no value.
    pub(super) fn fail(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).has_failed = true;
    }

    /// Returns the variables that were missing so far, and forgets them.
    pub(super) fn take(&self) -> MissingVariables {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
