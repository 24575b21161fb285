//! Tests of the order of the library's modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

#[test]
fn no_module_uses_one_below_it_and_no_two_files_use_each_other() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let library = fs::read_to_string(source.join("lib.rs")).unwrap();
    let order: Vec<_> =
        library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut files = BTreeMap::new();
    for module in &order {
        read(&source, &[(*module).to_owned()], &mut files);
    }
    let place = |path: &[String]| order.iter().position(|module| path[0] == *module);

    // For each file of a folder, with all below it: the other files of the folder that it uses.
    let mut uses: BTreeMap<String, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for (user, text) in &files {
        for used in paths(text, user).iter().filter_map(|path| known(path, &files)) {
            assert!(place(used) <= place(user), "{} uses {}", user.join("::"), used.join("::"));
            let common = user.iter().zip(used).take_while(|(one, other)| one == other).count();
            if let (Some(one), Some(other)) = (user.get(common), used.get(common)) {
                let folder = uses.entry(user[..common].join("/")).or_default();
                folder.entry(one).or_default().insert(other);
            }
        }
    }
    let circles: Vec<_> = uses.iter().map(|(folder, uses)| (folder.as_str(), in_circles(uses))).collect();
    let circles: Vec<_> = circles.into_iter().filter(|(_, files)| !files.is_empty()).collect();
    assert!(circles.is_empty(), "{circles:?}");
}

/// Reads a module and those below it, without their tests.
fn read(source: &Path, path: &[String], files: &mut BTreeMap<Vec<String>, String>) {
    let directory = source.join(path.join("/"));
    let text = fs::read_to_string(directory.with_extension("rs")).unwrap();
    let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code = own.lines().map(|line| line.split("//").next().unwrap().trim());
    files.insert(path.to_owned(), code.collect::<Vec<_>>().join(" "));
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(name) = name.strip_suffix(".rs").filter(|name| *name != "tests") {
            read(source, &[path, &[name.to_owned()]].concat(), files);
        }
    }
}

/// Returns the paths in a file that begin with `crate` or `super`, those of `use` trees too, from the crate's root.
fn paths(text: &str, file: &[String]) -> Vec<Vec<String>> {
    let begins: Vec<_> = ["crate::", "super::"].iter().flat_map(|word| text.match_indices(word)).collect();
    let begins = begins.into_iter().map(|(at, _)| at).filter(|at| !text[..*at].ends_with("::"));
    let mut all = Vec::new();
    for at in begins {
        expand(&text[at..], "", &mut all);
    }
    let absolute = |path: String| {
        let mut segments = path.split("::").map(str::to_owned).peekable();
        let mut absolute = if path.starts_with("crate") { Vec::new() } else { file.to_owned() };
        while segments.next_if(|segment| segment == "super").is_some() {
            absolute.pop();
        }
        absolute.extend(segments.filter(|segment| segment != "crate" && segment != "self"));
        absolute
    };
    all.into_iter().map(absolute).collect()
}

/// Adds the paths of a `use` tree, or a single path, and returns the rest of the text.
fn expand<'t>(text: &'t str, above: &str, all: &mut Vec<String>) -> &'t str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
    let path = above.to_owned() + &text[..end];
    let Some(mut rest) = text[end..].strip_prefix('{') else {
        all.push(path);
        // ` as NAME`
        return text[end..].trim_start_matches(|c| !",}".contains(c));
    };
    while !rest.trim_start().starts_with('}') && !rest.is_empty() {
        rest = expand(rest.trim_start(), &path, all).trim_start().trim_start_matches(',');
    }
    rest.trim_start().strip_prefix('}').unwrap_or_default()
}

/// Returns the file that a path leads into.
fn known<'f>(path: &[String], files: &'f BTreeMap<Vec<String>, String>) -> Option<&'f [String]> {
    let above = (1..=path.len()).rev().map(|length| &path[..length]);
    above.filter_map(|path| files.get_key_value(path)).map(|(path, _)| path.as_slice()).next()
}

/// Returns the files that import themselves through other files.
fn in_circles<'f>(uses: &BTreeMap<&'f str, BTreeSet<&'f str>>) -> BTreeSet<&'f str> {
    let is_in_circle = |file: &&&str| {
        let mut reached = BTreeSet::new();
        let mut ahead = vec![**file];
        while let Some(next) = ahead.pop() {
            let new = uses.get(next).into_iter().flatten().filter(|used| reached.insert(**used));
            ahead.extend(new.copied().collect::<Vec<_>>());
        }
        reached.contains(**file)
    };
    uses.keys().filter(is_in_circle).copied().collect()
}
