//! Reasons for which a session cannot be spawned.

use super::read::DEPTH_MAX;
use crate::manifest::{Diagnostic, Diagnostics};
use crate::name::SessionPath;

/// Reason for which a session cannot be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The name is no name of a session.
    #[error(
        "`{}` is not a name of a session\nhelp: use letters, digits, `.`, `_` and `-`, at most 63, and begin with a letter or a digit", .0.escape_debug()
    )]
    Name(String),
    /// The tree would be too deep.
    #[error("a tree of sessions is at most {DEPTH_MAX} deep, and `{0}` would be deeper")]
    Depth(SessionPath),
    /// A session of this name is active.
    #[error("`{0}` is active already\nhelp: choose another name, or release it with `seedbed release {0}`")]
    Active(SessionPath),
    /// The manifest declares the session, and it is not applied.
    #[error("the manifest declares `{0}`\nhelp: choose another name, or create it with `seedbed apply`")]
    Declared(SessionPath),
    /// The parent is not active.
    #[error("no session `{0}` is active")]
    Parent(SessionPath),
    /// No session table has the name of the template.
    #[error("no session `{}` can be the template{}", name.escape_debug(), nearest.as_ref().map(|near| format!("\nhelp: did you mean `{near}`?")).unwrap_or_default())]
    Template {
        /// Name of the template.
        name: String,
        /// Most similar path that exists.
        nearest: Option<String>,
    },
    /// The template takes shares of a parent, and the session has none.
    #[error(
        "`{0}` takes shares of its parent, and a session at the top has no parent\nhelp: pass `--parent SESSION`, or a template at the top"
    )]
    Top(SessionPath),
    /// The template takes a share of a resource that the parent does not have.
    #[error(
        "`{parent}` has no {kind} called `{resource}` to take a share of\nhelp: choose another template or parent"
    )]
    NothingToShare {
        /// Path of the parent.
        parent: SessionPath,
        /// Kind of the resource.
        kind: String,
        /// Name of the resource.
        resource: String,
    },
    /// The manifest cannot be planned.
    #[error("the manifest cannot be planned")]
    Diagnostics(Diagnostics),
    /// The session cannot be planned, although the manifest has no diagnostics.
    #[error("{}", lines(.0))]
    Unplannable(Diagnostics),
    /// The applied sessions would be planned differently now, so that nothing can be planned beside them.
    #[error("`{0}` was applied with options that are planned differently now\nhelp: run `seedbed apply`")]
    Changed(SessionPath),
}

/// Returns the messages of diagnostics, each with its help on a line.
fn lines(diagnostics: &Diagnostics) -> String {
    let line = |diagnostic: &Diagnostic| match &diagnostic.help {
        Some(help) => format!("{}\nhelp: {help}", diagnostic.message),
        None => diagnostic.message.clone(),
    };
    diagnostics.iter().map(line).collect::<Vec<_>>().join("\n")
}
