//! Saves files of sessions, such as reports of tests, before their swarm is removed.

use std::path::{Component, Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::FileType;

use super::{Context, Event};
use crate::host::failpoint::{crashpoint, failpoint};
use crate::host::files::{self, Root, copies};
use crate::host::text::printable;
use crate::plan::Session;
use crate::provider::DISCOVERY_DIRECTORY;
use crate::state::{Artifacts, Record};

/// Directory that no glob matches: a repository, not a result.
const GIT: &str = ".git";

/// Parses a glob of files to save, relative to the directory of a session.
///
/// # Errors
///
/// The glob is not valid, or leads out of the directory.
pub fn artifact_glob(text: &str) -> Result<Glob, String> {
    let leads_out = |part: Component<'_>| !matches!(part, Component::Normal(_) | Component::CurDir);
    if text.is_empty() || Path::new(text).components().any(leads_out) {
        return Err("write a path below the directory of the session, such as `reports/**/*.xml`".to_owned());
    }
    let plain = text.trim_start_matches("./").trim_end_matches('/');
    GlobBuilder::new(plain).literal_separator(true).build().map_err(|error| error.kind().to_string())
}

/// Saves the artifacts of a swarm that was created for one command, as its record requires, and reports an event. Returns
/// the reasons for which some are not saved, one line each.
///
/// Files are copied to `DIR/SESSION/PATH`. Files that exist there are replaced. Links are neither copied nor followed.
pub fn save_artifacts(context: &Context<'_>, record: &Record) -> Vec<String> {
    let Some(artifacts) = &record.artifacts else { return Vec::new() };
    let mut saving = match Saving::new(artifacts) {
        Ok(saving) => saving,
        Err(why) => return vec![why],
    };
    for session in record.plan.sessions() {
        saving.session(context, session);
    }
    crashpoint!("artifacts.saved");
    let Saving { files, failures, .. } = saving;
    let directory = artifacts.directory.clone();
    (context.events)(&Event::ArtifactsSaved { directory, files, failures: failures.clone() });
    failures
}

/// Progress of saving artifacts.
struct Saving<'a> {
    artifacts: &'a Artifacts,
    globs: GlobSet,
    /// Directories that the globs begin with, in which all their files are.
    beginnings: Vec<PathBuf>,
    files: usize,
    failures: Vec<String>,
}

impl<'a> Saving<'a> {
    fn new(artifacts: &'a Artifacts) -> Result<Self, String> {
        let mut globs = GlobSetBuilder::new();
        for text in &artifacts.globs {
            globs.add(artifact_glob(text)?);
        }
        let beginnings = artifacts.globs.iter().map(|text| beginning(text)).collect();
        let globs = globs.build().map_err(|error| error.to_string())?;
        Ok(Self { artifacts, globs, beginnings, files: 0, failures: Vec::new() })
    }

    /// Saves the files of one session. A session that works in the workspace has nothing of its own that is removed.
    fn session(&mut self, context: &Context<'_>, session: &Session) {
        let swarm = context.swarm;
        // A session without its directory has nothing to save.
        let Ok(directory) = crate::discovery::directory(swarm, session) else { return };
        if swarm.workspace().starts_with(&directory) {
            return;
        }
        let opened =
            Root::toward(swarm.workspace(), &directory).and_then(|(root, below)| root.directory(&below));
        match opened {
            Ok(Some(from)) => self.directory(&from, session, Path::new(""), false),
            Ok(None) => {}
            Err(error) => self.failed(session, &error),
        }
    }

    /// Saves the files below one directory, which is `relative` to that of the session: all of them, or those that match.
    fn directory(&mut self, from: &Root, session: &Session, relative: &Path, all: bool) {
        let names = match from.names() {
            Ok(names) => names,
            Err(error) => return self.failed(session, &error),
        };
        let mut to = None;
        for name in names {
            let path = relative.join(&name);
            if name == GIT || path == Path::new(DISCOVERY_DIRECTORY) {
                continue;
            }
            let matches = all || self.globs.is_match(&path);
            match from.file_type(&name) {
                Some(FileType::Directory) if matches || self.leads_to(&path) => {
                    match from.directory(Path::new(&name)) {
                        Ok(Some(below)) => self.directory(&below, session, &path, matches),
                        Ok(None) => {}
                        Err(error) => self.failed(session, &error),
                    }
                }
                Some(FileType::RegularFile) if matches => {
                    if to.is_none() {
                        match self.destination(session, relative) {
                            Ok(destination) => to = Some(destination),
                            Err(error) => return self.failed(session, &error),
                        }
                    }
                    let copied = failpoint!("artifacts.save")
                        .map_err(|error| files::Error::Io {
                            action: "copy",
                            path: from.path().join(&name),
                            source: error.into(),
                        })
                        .and_then(|()| {
                            to.as_ref().map_or(Ok(false), |to| copies::copy_over(from, &name, to))
                        });
                    match copied {
                        Ok(copied) => self.files += usize::from(copied),
                        Err(error) => self.failed(session, &error),
                    }
                }
                _ => {}
            }
        }
    }

    /// Opens the directory for files of a session, and removes what a killed process has left there.
    fn destination(&self, session: &Session, relative: &Path) -> Result<Root, files::Error> {
        let (root, below) = Root::toward(Path::new("/"), &self.artifacts.directory)?;
        let to = root.create_directories(&below.join(session.path.as_str()).join(relative))?;
        to.sweep()?;
        Ok(to)
    }

    /// Returns whether a directory contains files that a glob may match.
    fn leads_to(&self, directory: &Path) -> bool {
        self.beginnings
            .iter()
            .any(|beginning| directory.starts_with(beginning) || beginning.starts_with(directory))
    }

    fn failed(&mut self, session: &Session, error: &files::Error) {
        self.failures.push(format!("{}: {}", session.path, printable(&error.to_string())));
    }
}

/// Returns the directory that a glob begins with, up to the first part with a wildcard.
fn beginning(glob: &str) -> PathBuf {
    let is_plain =
        |part: &Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{', '\\']);
    let parts = Path::new(glob).components().filter(|part| *part != Component::CurDir);
    parts.take_while(is_plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glob_that_leads_out_is_refused() {
        for text in ["", "/etc/passwd", "../x", "a/../../x", "[", "a{"] {
            assert!(artifact_glob(text).is_err(), "{text}");
        }
        for text in ["a", "./a/", "a/**/*.xml", "{a,b}/c"] {
            assert!(artifact_glob(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn beginning_is_what_has_no_wildcard() {
        let cases = [("a/b/*.xml", "a/b"), ("**/x", ""), ("./a/b", "a/b"), ("a/{b,c}/d", "a")];
        for (glob, expected) in cases {
            assert_eq!(beginning(glob), Path::new(expected), "{glob}");
        }
    }
}
