//! Tests of fenced blocks in Markdown pages: manifests are valid, commands run.

use std::collections::BTreeMap;
use std::iter;
use std::path::Path;

use seedbed::manifest;
use seedbed::provider::Registry;

use super::pages::{Block, Page, blocks, pages};
use super::root;
use crate::sandbox::Sandbox;

/// Pages of the book whose `sh` blocks run, each in a repository of its own.
const RUN: [&str; 5] =
    ["guide/first-swarm.md", "guide/agents.md", "guide/spawn.md", "guide/ci.md", "guide/review.md"];

#[test]
fn the_readme_is_short_and_its_quick_start_has_two_commands_each_alone_in_its_block() {
    let readme = Page::read("README.md");
    assert!(readme.text.lines().count() <= 150);
    let commands = blocks(readme.section("\n## Quick start"));
    let commands: Vec<_> = commands.iter().filter(|block| block.language == "sh").collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    for command in &commands {
        assert_eq!(command.text.lines().count(), 1, "{command:?}");
    }
    let example =
        commands[0].text.split_whitespace().find(|word| word.starts_with("examples/")).expect("an example");
    assert!(root().join(example).is_file(), "{example}");
    assert!(std::fs::read_to_string(root().join(".ci/check")).unwrap().contains(commands[1].text));
}

#[test]
fn every_manifest_in_a_page_is_valid() {
    let kinds = Registry::built_in().kinds();
    let mut count = 0;
    for page in pages() {
        for block in page.blocks().iter().filter(|block| block.language == "toml") {
            if block.comment == "not a manifest" {
                continue;
            }
            let manifest = manifest::parse(block.text, &kinds);
            assert!(manifest.is_ok(), "{}:{}: {:#?}", page.path.display(), block.line, manifest.err());
            count += 1;
        }
    }
    assert!(count >= 6, "{count}");
}

#[test]
fn exit_codes_in_the_reference_are_those_of_the_help() {
    let page = Page::read("docs/src/reference/exit-codes.md");
    let (table, _) = page.text.split_once("\n| after").unwrap();
    let in_page: BTreeMap<u8, String> = table
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            Some((cells.next()?.parse().ok()?, cells.next()?.to_owned()))
        })
        .collect();
    let help = std::fs::read_to_string(root().join("src/cli/exit.rs")).unwrap();
    let in_help: BTreeMap<u8, String> = help
        .lines()
        .filter_map(|line| {
            let (code, meaning) = line.trim().split_once(char::is_whitespace)?;
            Some((code.parse().ok()?, meaning.trim().trim_end_matches("\";").to_owned()))
        })
        .collect();
    assert_eq!(in_page, in_help);
}

/// Returns whether a block is run, with the reason in its comment if it is not.
fn is_run(block: &Block<'_>) -> bool {
    let reason = block.comment.strip_prefix("not run: ");
    assert!(reason != Some(""), "{block:?}");
    block.language == "sh" && reason.is_none()
}

/// Runs the `sh` blocks of a page. A manifest that begins with `# seedbed.toml` is written first.
fn check_page(path: &str) {
    assert!(RUN.contains(&path));
    let page = Page::read(format!("docs/src/{path}"));
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.agent]\ncount = 2\nresources = [\"git-worktree\", \"port-range\"]\n");
    let programs = Path::new(env!("CARGO_BIN_EXE_seedbed")).parent().unwrap().to_owned();
    let path = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths(iter::once(programs).chain(std::env::split_paths(&path))).unwrap();
    for block in page.blocks() {
        if block.language == "toml" && block.text.starts_with("# seedbed.toml\n") {
            sandbox.write("seedbed.toml", block.text);
        }
        if is_run(&block) {
            let mut shell = sandbox.program("sh", &sandbox.repository);
            let output = shell.args(["-euc", block.text]).env("PATH", &path).output().unwrap();
            assert!(output.status.success(), "{}:{}: {output:?}", page.path.display(), block.line);
        }
    }
}

#[test]
fn the_commands_of_your_first_swarm_run() {
    check_page("guide/first-swarm.md");
}

#[test]
fn the_commands_of_a_swarm_of_agents_run() {
    check_page("guide/agents.md");
}

#[test]
fn the_commands_of_sessions_that_agents_add_run() {
    check_page("guide/spawn.md");
}

#[test]
fn the_commands_of_fixtures_in_ci_run() {
    check_page("guide/ci.md");
}

#[test]
fn the_commands_of_reviewing_plans_run() {
    check_page("guide/review.md");
}

#[test]
fn every_page_of_the_book_with_commands_is_run() {
    let book = pages().into_iter().filter(|page| page.path.starts_with("docs/src"));
    for page in book.filter(|page| page.blocks().iter().any(is_run)) {
        let is_listed = RUN.iter().any(|path| page.path.ends_with(path));
        assert!(is_listed, "{}: list it in RUN, or write `<!-- not run: REASON -->`", page.path.display());
    }
}
