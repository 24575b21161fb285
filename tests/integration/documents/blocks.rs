//! Fenced blocks of Markdown pages are true: manifests are valid, commands run.

use std::collections::BTreeMap;

use seedbed::manifest;
use seedbed::provider::Registry;

use super::pages::{Page, blocks, pages};
use super::root;

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
