//! Renders the variables that templates of other sessions use, each before the templates that use it.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::template_scope::TemplateScopes;
use super::template_variables::Variable;
use crate::manifest::diagnostic::Step;
use crate::manifest::{Diagnostic, Manifest};
use crate::template::{Problem, Templates};

/// Maximum number of times that a template is rendered. Each time, it may use variables that depend on the values of
/// others, as in `sessions[sessions['a'].env.NEXT].env.X`.
pub(super) const ROUNDS_MAX: u32 = 8;

/// Maximum number of variables of a circle that a message names.
const NAMED_MAX: usize = 8;

/// Resolver of variables.
pub(super) struct Resolver<'r> {
    manifest: &'r Manifest,
    templates: &'r Templates<'r>,
    names: &'r TemplateScopes,
    /// One diagnostic for each circle.
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// Variable that is being rendered.
struct Frame {
    variable: Variable,
    /// Variables that its template uses and that are not rendered yet.
    pending: Vec<Variable>,
    rounds: u32,
}

impl<'r> Resolver<'r> {
    pub(super) fn new(
        manifest: &'r Manifest,
        templates: &'r Templates<'r>,
        names: &'r TemplateScopes,
    ) -> Self {
        Self { manifest, templates, names, diagnostics: Vec::new() }
    }

    /// Renders a variable, and before it each variable that it uses.
    ///
    /// A chain of variables may be as long as the manifest, so the stack is not that of the thread.
    pub(super) fn resolve(&mut self, variable: Variable) {
        let rendered = self.names.rendered_variables();
        if rendered.contains(&variable) {
            return;
        }
        let mut open = HashSet::from([variable.clone()]);
        let mut stack = vec![Frame::new(variable)];
        while let Some(frame) = stack.last_mut() {
            if let Some(next) = frame.pending.pop() {
                if rendered.contains(&next) {
                    continue;
                }
                if open.insert(next.clone()) {
                    stack.push(Frame::new(next));
                    continue;
                }
                let begin = stack.iter().position(|frame| frame.variable == next).unwrap_or_default();
                let circle: Vec<_> = stack.drain(begin..).map(|frame| frame.variable).collect();
                self.diagnostics.extend(self.circle(&circle));
                for variable in circle {
                    open.remove(&variable);
                    rendered.insert(variable, None);
                }
                continue;
            }
            frame.rounds += 1;
            let (value, missing) = self.render(&frame.variable);
            if !missing.is_empty() && frame.rounds < ROUNDS_MAX {
                frame.pending = missing;
            } else if let Some(Frame { variable, .. }) = stack.pop() {
                open.remove(&variable);
                rendered.insert(variable, value.filter(|_| missing.is_empty()));
            }
        }
    }

    /// Returns the value of a variable, and the variables that have to be rendered before.
    ///
    /// A problem of its template is reported when its session is rendered.
    fn render(&self, variable: &Variable) -> (Option<String>, Vec<Variable>) {
        let scope = self.names.scope(variable.0);
        let source = self.source(variable);
        let rendered = source.and_then(|source| self.templates.render(source, &scope.names).ok());
        let missing = scope.missing.take();
        (rendered.filter(|_| !missing.has_failed), missing.unrendered.into_iter().collect())
    }

    fn source(&self, (at, name): &Variable) -> Option<&'r str> {
        self.manifest.sessions[*at].declaration.text.env.get(name).map(String::as_str)
    }

    /// Returns the diagnostic of variables that use each other in a circle, at the first one.
    fn circle(&self, circle: &[Variable]) -> Option<Diagnostic> {
        let described = |(at, name): &Variable| format!("`{name}` of `{}`", self.manifest.sessions[*at].path);
        let first = circle.first()?;
        let next = circle.get(1).unwrap_or(first);
        let mut message = described(first);
        if circle.len() == 1 {
            message.push_str(" uses itself");
        } else {
            let _ = write!(message, " uses {}", described(next));
            for variable in circle.iter().skip(2).take(NAMED_MAX) {
                let _ = write!(message, ", which uses {}", described(variable));
            }
            if circle.len() > NAMED_MAX + 2 {
                let _ = write!(message, ", and so on over {} variables", circle.len());
            }
            let _ = write!(message, ", which uses {}", described(first));
        }
        let problem = Problem::circle(self.source(first)?, &next.1, message);
        let declaration = &self.manifest.sessions[first.0].declaration;
        Some(problem.at(&declaration.locate("env", Some(Step::key(&first.1)))))
    }
}

impl Frame {
    fn new(variable: Variable) -> Self {
        Self { variable, pending: Vec::new(), rounds: 0 }
    }
}
