//! Tests that links, anchors and paths in Markdown have a target.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::pages::{Page, pages};
use super::root;

/// Returns the anchor of a heading, as mdBook and GitHub make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &Page) -> BTreeSet<String> {
    let headings = page.prose().into_iter().filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| anchor(line.trim_start_matches('#'))).collect()
}

/// Returns the targets of the links in a line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// Returns a path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, component| {
        match component {
            Component::ParentDir => assert!(path.pop(), "{}", path.display()),
            Component::CurDir => {}
            other => path.push(other),
        }
        path
    })
}

#[test]
fn every_relative_link_leads_to_a_file_and_an_anchor() {
    let pages = pages();
    let mut broken = Vec::new();
    let mut count = 0;
    for page in &pages {
        for (line, text) in page.prose() {
            for target in targets(text).filter(|target| !target.contains("://")) {
                count += 1;
                let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
                let path = match file {
                    "" => page.path.clone(),
                    file => normal(&page.path.parent().unwrap().join(file)),
                };
                let linked = pages.iter().find(|page| page.path == path);
                let has_anchor = linked.is_some_and(|page| anchors(page).contains(fragment));
                if !root().join(&path).exists() || !(fragment.is_empty() || has_anchor) {
                    broken.push(format!("{}:{line}: {target}", page.path.display()));
                }
            }
        }
    }
    assert!(count > 50 && broken.is_empty(), "{count} links; broken: {broken:#?}");
}

/// A path of the repository in backticks would be a dead end for a reader if its file had been renamed.
#[test]
fn every_path_of_the_repository_that_a_page_names_exists() {
    const DIRECTORIES: [&str; 6] = ["src/", "tests/", "docs/", "examples/", "schemas/", ".ci/"];
    let mut missing = Vec::new();
    for page in pages().iter().filter(|page| page.path != Path::new("CHANGELOG.md")) {
        for (line, text) in page.prose() {
            for name in text.split('`').skip(1).step_by(2) {
                let is_path = DIRECTORIES.iter().any(|directory| name.starts_with(directory))
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
                if is_path && !root().join(name).exists() {
                    missing.push(format!("{}:{line}: {name}", page.path.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_page_of_the_book_is_in_its_summary() {
    let summary = Page::read("docs/src/SUMMARY.md");
    let listed: BTreeSet<_> = summary.text.lines().flat_map(targets).map(PathBuf::from).collect();
    let book =
        pages().into_iter().filter_map(|page| Some(page.path.strip_prefix("docs/src").ok()?.to_owned()));
    let book: BTreeSet<_> = book.filter(|path| path != Path::new("SUMMARY.md")).collect();
    assert_eq!(listed, book);
}
