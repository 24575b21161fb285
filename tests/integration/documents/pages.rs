//! Markdown pages of the repository, and the parts of them that tests check.

use std::path::{Path, PathBuf};

use super::root;

/// A page of Markdown.
pub(super) struct Page {
    /// Path in the repository.
    pub(super) path: PathBuf,
    /// Content of the file.
    pub(super) text: String,
}

/// A fenced block of a page.
#[derive(Debug)]
pub(super) struct Block<'p> {
    /// Language after the opening fence; empty if there is none.
    pub(super) language: &'p str,
    /// Content between the fences, without the last line's end.
    pub(super) text: &'p str,
    /// Line number of the opening fence, from 1.
    pub(super) line: usize,
    /// Text of an HTML comment on the line above the fence; empty if there is none.
    pub(super) comment: &'p str,
}

impl Page {
    /// Reads a page by its path in the repository.
    pub(super) fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let text = std::fs::read_to_string(root().join(&path))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, text }
    }

    /// Returns the section below a heading, without the sections of the same level after it.
    pub(super) fn section(&self, heading: &str) -> &str {
        let section = self.text.split(heading).nth(1).unwrap_or_else(|| panic!("no {heading}"));
        section.split("\n## ").next().unwrap()
    }

    /// Returns the fenced blocks of the page, in their order.
    pub(super) fn blocks(&self) -> Vec<Block<'_>> {
        blocks(&self.text)
    }

    /// Returns the lines outside of fenced blocks, with their numbers from 1.
    pub(super) fn prose(&self) -> Vec<(usize, &str)> {
        let mut is_fenced = false;
        let mut prose = Vec::new();
        for (index, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                is_fenced = !is_fenced;
            } else if !is_fenced {
                prose.push((index + 1, line));
            }
        }
        prose
    }
}

/// Returns the fenced blocks of a text, in their order.
pub(super) fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let (mut above, mut open) = ("", None);
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(language), None) => open = Some((language, index, above)),
            (Some(_), Some((language, start, comment))) => {
                blocks.push(Block {
                    language,
                    text: lines(text, start + 1, index),
                    line: start + 1,
                    comment,
                });
                open = None;
            }
            (None, _) => {}
        }
        above = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->")).unwrap_or_default();
    }
    assert!(open.is_none(), "a fence is never closed: {open:?}");
    blocks
}

/// Returns the lines from `start` up to `end`, counted from 0, without the last line's end.
fn lines(text: &str, start: usize, end: usize) -> &str {
    let offset = |line: usize| text.split_inclusive('\n').take(line).map(str::len).sum::<usize>();
    text[offset(start)..offset(end)].trim_end_matches('\n')
}

/// Returns the README and the other pages at the top, and every page of the book.
pub(super) fn pages() -> Vec<Page> {
    let mut paths = Vec::new();
    for directory in ["", "docs/src", ".github"] {
        collect(Path::new(directory), directory == "docs/src", &mut paths);
    }
    paths.sort();
    paths.into_iter().map(Page::read).collect()
}

/// Adds the Markdown files of a directory to `paths`, with `is_deep` those below it too.
fn collect(directory: &Path, is_deep: bool, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(root().join(directory)) else { return };
    for entry in entries.map(Result::unwrap) {
        let path = directory.join(entry.file_name());
        if is_deep && entry.file_type().unwrap().is_dir() {
            collect(&path, true, paths);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
}
