//! Template files: text of the workspace from which files of sessions are rendered.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::manifest::diagnostic::{LocationPart, Step};
use crate::manifest::{Declaration, Diagnostic, FILES, Location, Manifest, rule};
use crate::observe::Observation;
use crate::template::Problem;

/// Key of a file's table that names its template file.
const TEMPLATE_FILE: &str = "template-file";

/// Maximum size of a template file, in bytes: that of any template.
pub(super) const TEMPLATE_FILE_MAX: usize = 64 << 10;

/// Returns the manifest with the content of its template files, and the diagnostics of those that cannot be used.
pub(super) fn with_content<'m>(
    manifest: &'m Manifest,
    observation: &Observation,
) -> (Cow<'m, Manifest>, Vec<Diagnostic>) {
    let has_template =
        |declaration: &Declaration| declaration.text.files.values().any(|file| file.template_file.is_some());
    let mut diagnostics = Vec::new();
    if !manifest.sessions.iter().any(|session| has_template(&session.declaration)) {
        return (Cow::Borrowed(manifest), diagnostics);
    }
    let mut complete = manifest.clone();
    // The manifest of the caller keeps the originals, so that their addresses stay unique.
    let mut filled: HashMap<*const Declaration, Arc<Declaration>> = HashMap::new();
    for session in &mut complete.sessions {
        let declaration = &session.declaration;
        let with_content = filled.entry(Arc::as_ptr(declaration)).or_insert_with(|| {
            let mut with_content = Declaration::clone(declaration);
            fill(&mut with_content, observation, &mut diagnostics);
            Arc::new(with_content)
        });
        session.declaration = Arc::clone(with_content);
    }
    (Cow::Owned(complete), diagnostics)
}

/// Reads the template files of a table.
fn fill(declaration: &mut Declaration, observation: &Observation, diagnostics: &mut Vec<Diagnostic>) {
    let mut files = declaration.text.files.clone().into_owned();
    for (path, file) in &mut files {
        let Some(name) = &file.template_file else { continue };
        let wrong = match observation.file(Path::new(name), TEMPLATE_FILE_MAX) {
            Some(Ok(text)) => {
                text.clone_into(&mut file.text);
                continue;
            }
            Some(Err(why)) => why,
            // The path was reported.
            None => continue,
        };
        let location = declaration.locate(FILES, Some(Step::key(path))).key(TEMPLATE_FILE);
        let diagnostic = Diagnostic::new(rule::TEMPLATE_FILE, location, wrong, "the template of the file");
        diagnostics.push(diagnostic.with_help("name a text file of the workspace, relative to its root"));
    }
    declaration.text.files = Cow::Owned(files);
}

/// Returns the diagnostic of a problem of a template. A template file has lines of its own, outside of the manifest.
pub(super) fn diagnostic(problem: Problem, location: &Location, source: &str) -> Diagnostic {
    let mut diagnostic = problem.at(location);
    if location.steps.last() == Some(&Step::key(TEMPLATE_FILE)) {
        if let LocationPart::Within(start, _) = diagnostic.location.part {
            let line = source.match_indices('\n').take_while(|(at, _)| *at < start).count() + 1;
            diagnostic.message = format!("line {line} of the file: {}", diagnostic.message);
        }
        diagnostic.location.part = LocationPart::Value;
    }
    diagnostic
}
