//! Measures of the words in `src`: beginnings of doc comments, and words without an actor.
//!
//! `cargo test --test integration documents::words -- --nocapture` prints them for each folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::root;

/// Beginnings of a doc comment that make a reader look for its subject.
const BEGINNINGS: [&str; 8] = ["What", "How", "Where", "Which", "Whether", "Whose", "Who", "The same"];

/// Words that hide who acts.
const WITHOUT_ACTOR: [&str; 4] = ["somebody", "nobody", "whoever", "whatever"];

/// Counts of one folder.
#[derive(Debug, Default)]
struct Words {
    /// Doc comments, consecutive lines counted once.
    comments: usize,
    /// Doc comments that begin with one of [`BEGINNINGS`].
    beginnings: usize,
    /// Occurrences of [`WITHOUT_ACTOR`], code and strings included.
    without_actor: usize,
}

impl Words {
    fn add(&mut self, text: &str) {
        let mut is_comment = false;
        for line in text.lines().map(str::trim_start) {
            let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
            if let Some(first) = comment.filter(|_| !is_comment) {
                self.comments += 1;
                self.beginnings += usize::from(begins_badly(first.trim_start()));
            }
            is_comment = comment.is_some();
        }
        let words = text.split(|c: char| !c.is_alphabetic()).map(str::to_lowercase);
        self.without_actor += words.filter(|word| WITHOUT_ACTOR.contains(&word.as_str())).count();
    }

    fn share(&self) -> usize {
        self.beginnings * 1000 / self.comments.max(1)
    }
}

/// Returns whether a doc comment begins with one of [`BEGINNINGS`].
fn begins_badly(comment: &str) -> bool {
    BEGINNINGS.iter().any(|beginning| {
        comment.strip_prefix(beginning).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
    })
}

/// Counts the Rust files below a directory, each in the first folder of its path.
fn count(directory: &Path, folder: Option<&str>, counts: &mut BTreeMap<String, Words>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let folder = folder.unwrap_or(name);
        if path.is_dir() {
            count(&path, Some(folder), counts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            counts.entry(folder.to_owned()).or_default().add(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn source_has_few_comments_without_subject_or_actor() {
    let mut counts = BTreeMap::new();
    count(&root().join("src"), None, &mut counts);
    let mut total = Words::default();
    println!("{:14} {:>8} {:>10} {:>7} {:>14}", "", "comments", "beginnings", "share", "without actor");
    let print = |name: &str, words: &Words| {
        let share = format!("{}.{} %", words.share() / 10, words.share() % 10);
        let Words { comments, beginnings, without_actor } = words;
        println!("{name:14} {comments:8} {beginnings:10} {share:>7} {without_actor:14}");
    };
    for (folder, words) in &counts {
        print(folder, words);
        total.comments += words.comments;
        total.beginnings += words.beginnings;
        total.without_actor += words.without_actor;
    }
    print("all", &total);
    assert!(total.comments > 1000, "{total:?}");
    assert!(total.share() < 20, "2 % begin without a subject: {total:?}");
    assert!(total.without_actor < 10, "{total:?}");
}

#[test]
fn beginnings_are_whole_words() {
    assert!(begins_badly("What is left") && begins_badly("The same, later") && begins_badly("How"));
    assert!(
        !begins_badly("Whatever") && !begins_badly("The sameness") && !begins_badly("Returns what is left")
    );
}
