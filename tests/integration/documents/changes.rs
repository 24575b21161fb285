//! Tests that the page about changes of an active swarm agrees with the planner: each row is planned.

use std::collections::BTreeMap;

use seedbed::manifest;
use seedbed::observe::{TreeEntry, Untracked, WORKSPACE_REPOSITORY};
use seedbed::plan::{self, Action, AppliedPlan, Plan};
use seedbed::provider::Registry;
use serde_json::Value;

use super::pages::Page;
use crate::friendly::friendly;

/// Base ref that names another commit than all others.
const OTHER_COMMIT: &str = "other-commit";

/// Answer of the external kind `db` to its plan request.
const ANSWER: &str = r#"{ "protocol": 2, "allocations": { "s/a": { "allocation": { "name": "a" } } } }"#;

const ONE_WORKTREE: &str = "{ kind = \"git-worktree\", name = \"api\" }";
const TWO_WORKTREES: &str =
    "{ kind = \"git-worktree\", name = \"api\" }, { kind = \"git-worktree\", name = \"web\" }";

const SEED: &str = "seed = [{ path = \"deps\", key = [\"README.md\"], command = \"mkdir deps\" }]";

/// One row of the page, and manifests before and after the change that the row describes.
struct Case {
    /// Heading of the table, and the first two cells of the row.
    row: String,
    before: String,
    after: String,
    /// Path of the session that changes.
    session: &'static str,
}

/// Returns a manifest with a session `a` that has one resource with these options.
fn resource(kind: &str, options: &str) -> String {
    let separator = if options.is_empty() { "" } else { ", " };
    format!("[session.a]\nresources = [{{ kind = \"{kind}\"{separator}{options} }}]\n")
}

/// Returns [`resource`] with a child `b`, which takes a share.
fn with_child(kind: &str, options: &str) -> String {
    format!("{}[session.a.child.b]\n", resource(kind, options))
}

/// Returns a case of a child `b` that no longer takes a share.
fn from_pool(kind: &str, row: &str, options: &str) -> Case {
    let pool = format!("resources = [{{ kind = \"{kind}\", from = \"pool\" }}]\n");
    let before = with_child(kind, options);
    case(&format!("{kind} | `from` | {row}"), "a/b", &before, &format!("{before}{pool}"))
}

/// Returns a case of an option of a resource of the session `a`, which has no children.
fn option(kind: &str, row: &str, before: &str, after: &str) -> Case {
    case(&format!("{kind} | {row}"), "a", &resource(kind, before), &resource(kind, after))
}

/// Returns a case of the files of the session `a`.
fn with_files(row: &str, before: &str, after: &str) -> Case {
    let tree = |files: &str| format!("{}files = {{ {files} }}\n", resource("git-worktree", ""));
    case(&format!("Sessions | `files` | {row}"), "a", &tree(before), &tree(after))
}

fn case(row: &str, session: &'static str, before: &str, after: &str) -> Case {
    Case { row: row.to_owned(), before: before.to_owned(), after: after.to_owned(), session }
}

/// Returns a case of a key of the session table.
fn key(row: &str, before: &str, after: &str) -> Case {
    let session = |lines: &str| format!("[session.a]\nresources = [\"directory\"]\n{lines}\n");
    case(&format!("Sessions | {row}"), "a", &session(before), &session(after))
}

fn cases() -> Vec<Case> {
    [sessions(), worktrees(), ports(), directories(), pool(), other_kinds()].into_iter().flatten().collect()
}

fn sessions() -> Vec<Case> {
    let replicas = |count| format!("[session.a]\nresources = [\"directory\"]\ncount = {count}\n");
    let session = |resources: &str| format!("[session.a]\nresources = [{resources}]\n");
    let both = session("\"directory\", \"port-range\"");
    let child = with_child("directory", "");
    vec![
        key("`env` | any", "env = { A = \"1\" }", "env = { A = \"2\" }"),
        key("`prompt` | any", "", "prompt = [\"Review.\"]"),
        key("`metadata` | any", "metadata = { team = \"a\" }", "metadata = { team = \"b\" }"),
        with_files("one more, or another content", "x = \"1\"", "x = \"2\", y = \"1\""),
        with_files("one less", "x = \"1\", y = \"1\"", "x = \"1\""),
        key("`setup` | any", "setup = [\"true\"]", "setup = [\"make\"]"),
        key("`ready` | any", "ready = [{ command = \"true\" }]", "ready = [{ command = \"test -d .\" }]"),
        key("`teardown` | any", "teardown = [\"true\"]", ""),
        key("`expires` | any", "expires = \"3d\"", ""),
        key("`command` | any", "command = \"true\"", "command = \"agent\""),
        case("Sessions | `resources` | one more", "a", &session("\"directory\""), &both),
        case("Sessions | `resources` | one less", "a", &both, &session("\"directory\"")),
        case(
            "Sessions | `resources` | another `name`",
            "a",
            &resource("port-range", ""),
            &resource("port-range", "name = \"debug\""),
        ),
        case("Sessions | `resources` | another order", "a", &both, &session("\"port-range\", \"directory\"")),
        case(
            "Sessions | `resources` | one worktree becomes several",
            "a",
            &session(ONE_WORKTREE),
            &session(TWO_WORKTREES),
        ),
        case(
            "Sessions | `resources` | several worktrees become one",
            "a",
            &session(TWO_WORKTREES),
            &session(ONE_WORKTREE),
        ),
        case(
            "Sessions | `directory` | another resource",
            "a",
            &session(TWO_WORKTREES),
            &format!("{}directory = \"web\"\n", session(TWO_WORKTREES)),
        ),
        case("Sessions | `count` | higher, an existing replica", "a-0", &replicas(1), &replicas(2)),
        case("Sessions | `count` | higher, a new replica", "a-1", &replicas(1), &replicas(2)),
        case("Sessions | `count` | lower, the last replica", "a-1", &replicas(2), &replicas(1)),
        case("Sessions | `child` | one more or less", "a", &resource("directory", ""), &child),
        case(
            "Sessions | name | another, the old session",
            "a",
            &session(""),
            &session("").replace(".a]", ".b]"),
        ),
        case(
            "Sessions | name | another, the new session",
            "b",
            &session(""),
            &session("").replace(".a]", ".b]"),
        ),
        case(
            "Sessions | any | comments and order of keys",
            "a",
            &session(""),
            &format!("# A comment\n{}", session("")),
        ),
    ]
}

fn worktrees() -> Vec<Case> {
    let option = |row: &str, before: &str, after: &str| option("git-worktree", row, before, after);
    let other_commit = format!("base-ref = \"{OTHER_COMMIT}\"");
    let (flat, nested) = ("layout = \"flat\"", "layout = \"nested\"");
    vec![
        option("`relative` | any", "", "relative = true"),
        option("`copy` | a path is added", "", "copy = [\".env\"]"),
        option("`copy` | a path is removed", "copy = [\".env\"]", ""),
        option("`link` | a path is added", "", "link = [\"cache\"]"),
        option("`link` | a path is removed", "link = [\"cache\"]", ""),
        option("`seed` | one more, another key or command", "", SEED),
        option("`seed` | one less", SEED, ""),
        option("`git-hooks` | any", "", "git-hooks = true"),
        option("`branch-exists` | any", "", "branch-exists = \"refuse\""),
        option("`max-base-age` | any", "", "max-base-age = \"1d\""),
        option("`checkout` | between `auto` and `git`", "", "checkout = \"git\""),
        option("`checkout` | to or from `overlay`", "", "checkout = \"overlay\""),
        option("`base-ref` | the same commit", "", "base-ref = \"v1.0\""),
        option("`base-ref` | another commit", "", &other_commit),
        option("`branch` | the same name", "branch = \"work/a\"", "branch = \"work/{{ session.name }}\""),
        option("`branch` | another name", "branch = \"work/a\"", "branch = \"work/b\""),
        option("`target-path` | any", "", "target-path = \"services/api\""),
        case(
            "git-worktree | `repository` | another",
            "a",
            &format!("[repository.web]\nroot = \"../web\"\n{}", resource("git-worktree", "")),
            &format!(
                "[repository.web]\nroot = \"../web\"\n{}",
                resource("git-worktree", "repository = \"web\"")
            ),
        ),
        option("`root-directory` | any", "", "root-directory = \"elsewhere\""),
        option("`layout` | a session that takes no share", flat, nested),
        case(
            "git-worktree | `layout` | a child that takes a share",
            "a/b",
            &with_child("git-worktree", flat),
            &with_child("git-worktree", nested),
        ),
        from_pool("git-worktree", "the same directory and commit", flat),
        from_pool("git-worktree", "another directory or commit", nested),
    ]
}

fn ports() -> Vec<Case> {
    let option = |row: &str, before: &str, after: &str| option("port-range", row, before, after);
    let divided = |row: &str, session, before: &str, after: &str| {
        let [before, after] = [before, after].map(|options| with_child("port-range", options));
        case(&format!("port-range | {row}"), session, &before, &after)
    };
    let (http, both) = ("names = [\"http\"]", "names = [\"http\", \"db\"]");
    let [http_of_2, both_of_2] = [http, both].map(|names| format!("{names}, reserve = 2"));
    let [set, removed] = ["reserve = 2", "reserve = 1"].map(|reserve| format!("{http}, {reserve}"));
    vec![
        option("`names` | without children", http, both),
        divided("`names` | with children, `reserve` set", "a", &http_of_2, &both_of_2),
        divided("`names` | with children, as many names", "a", http, "names = [\"web\"]"),
        divided("`names` | with children, another number of names", "a", http, both),
        divided("`names` | in the parent of a share, another number of names", "a/b", http, both),
        option("`reserve` | without children", http, &set),
        divided("`reserve` | with children", "a", &removed, &set),
        divided("`reserve` | in the parent of a share", "a/b", &removed, &set),
        option("`primary-port-offset` | any", "", "primary-port-offset = 4"),
        divided("`slots` | any", "a", "slots = 4", "slots = 8"),
        divided("`slots` | in the parent of a share", "a/b", "slots = 4", "slots = 8"),
        option("`block-count` | the range still contains the block", "block-count = 64", "block-count = 65"),
        option(
            "`block-count` | the range no longer contains the block",
            "block-count = 64",
            "block-count = 1",
        ),
        option("`base-port` | any", "", "base-port = 17000"),
        option("`block-size` | any", "", "block-size = 16"),
        option("`lock-directory` | any", "", "lock-directory = \"locks\""),
        from_pool("port-range", "any", ""),
    ]
}

fn directories() -> Vec<Case> {
    let option = |row: &str, before: &str, after: &str| option("directory", row, before, after);
    vec![
        option("`keep` | any", "", "keep = false"),
        option("`copy-from` | any", "", "copy-from = \"fixtures\""),
        option("`root-directory` | any", "", "root-directory = \"elsewhere\""),
        from_pool("directory", "any", ""),
        case(
            "existing-directory | `path` | another",
            "a",
            &resource("existing-directory", "path = \"one\""),
            &resource("existing-directory", "path = \"other\""),
        ),
    ]
}

fn pool() -> Vec<Case> {
    const FIVE: &str = "items = [\"a\", \"b\", \"c\", \"d\", \"e\"]";
    let option = |row: &str, before: &str, after: &str| option("pool", row, before, after);
    let of_child = with_child("pool", FIVE);
    let own = format!("{of_child}resources = [{{ kind = \"pool\", from = \"pool\", {FIVE} }}]\n");
    vec![
        option("`items`, `file` | the list still has the items", "items = [\"a\"]", "file = \"list\""),
        option("`items`, `file` | the list no longer has the items", "items = [\"x\"]", "file = \"list\""),
        option("`pool` | any", FIVE, &format!("{FIVE}, pool = \"other\"")),
        option("`count` | any", FIVE, &format!("{FIVE}, count = 2")),
        option("`slots` | any", FIVE, &format!("{FIVE}, slots = 2")),
        case(
            "pool | `slots` | the number of children",
            "a",
            &of_child,
            &with_child("pool", &format!("{FIVE}, slots = 1")),
        ),
        case("pool | `from` | any", "a/b", &of_child, &own),
    ]
}

fn other_kinds() -> Vec<Case> {
    let provider = |command: &str, more: &str| format!("[provider.db]\ncommand = [\"{command}\"]\n{more}");
    let small = resource("db", "size = 1");
    let before = format!("{}{small}", provider("./db", ""));
    let case = |row: &str, after: String| case(&format!("Other kinds | {row}"), "a", &before, &after);
    vec![
        case("options | any", format!("{}{}", provider("./db", ""), resource("db", "size = 2"))),
        case("`command` | any", format!("{}{small}", provider("./other", ""))),
        case(
            "`timeout`, `claim` | any",
            format!("{}{small}", provider("./db", "timeout = 9\nclaim = true\n")),
        ),
    ]
}

/// Plans a manifest on a host on which all refs, directories and untracked files exist.
fn planned(text: &str, applied: Option<&AppliedPlan>) -> Plan {
    let text = format!("version = 1\nswarm = \"s\"\n{text}");
    let registry = Registry::built_in().with_external_kinds();
    let manifest =
        manifest::parse(&text, &registry.kinds()).unwrap_or_else(|found| panic!("{text}\n{found:#?}"));
    let queries = plan::queries(&manifest, &registry);
    let mut observation = friendly(&queries);
    let own = observation.repository_mut(WORKSPACE_REPOSITORY);
    if let Some(commit) = own.commits.get_mut(OTHER_COMMIT) {
        *commit = Ok("2".repeat(40));
    }
    for ((_, path), entry) in &mut own.trees {
        if path == ".ai_ops" {
            *entry = TreeEntry::Missing { near: Vec::new() };
        }
    }
    for glob in [".env", "cache"] {
        own.untracked.insert(glob.to_owned(), Ok(Untracked::Files { files: 1, bytes: 1 }));
    }
    observation.overlays = Some(Ok(()));
    observation.programs = Some(BTreeMap::from([("db".to_owned(), Ok(ANSWER.into()))]));
    plan::plan(&manifest, &registry, &observation, applied)
        .unwrap_or_else(|found| panic!("{text}\n{found:#?}"))
}

/// Returns the result of a change, in the words of the page.
fn result(case: &Case) -> &'static str {
    let applied = AppliedPlan::new(planned(&case.before, None));
    let plan = planned(&case.after, Some(&applied));
    let change = plan.changes().iter().find(|change| change.session.to_string() == case.session);
    let change = change.unwrap_or_else(|| panic!("{}: no change of {}", case.row, case.session));
    let needs_reason = !matches!(change.action, Action::Keep | Action::Create);
    assert!(!needs_reason || !change.reasons.is_empty(), "{} has no reason", case.row);
    match change.action {
        Action::Keep => "kept",
        Action::Update => "updated",
        Action::Replace => "replaced",
        Action::Create => "created",
        Action::Destroy => "destroyed",
        other => panic!("{}: {other:?}", case.row),
    }
}

/// Returns the results that the page's tables name, by heading, option and change.
fn documented() -> BTreeMap<String, String> {
    let page = Page::read("docs/src/reference/changes.md");
    let mut rows = BTreeMap::new();
    let mut heading = "";
    for (_, line) in page.prose() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title.trim_matches('`');
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let ["", option, change, result, _, ""] = cells[..]
            && !option.starts_with("---")
            && option != "key"
            && option != "option"
        {
            let row = format!("{heading} | {option} | {change}");
            assert_eq!(rows.insert(row.clone(), result.to_owned()), None, "{row} is there twice");
        }
    }
    rows
}

#[test]
fn every_option_has_a_documented_change() {
    let documented = documented();
    for kind in Registry::built_in().iter().filter(|kind| !kind.is_implied()) {
        let schema = kind.options_schema();
        let options = schema.get("properties").and_then(Value::as_object).unwrap();
        for option in options.keys() {
            let is_listed = documented.keys().any(|row| {
                let (heading, rest) = row.split_once(" | ").unwrap();
                let (options, _) = rest.split_once(" | ").unwrap();
                heading == kind.kind() && options.contains(&format!("`{option}`"))
            });
            assert!(is_listed, "`{option}` of `{}` has no row", kind.kind());
        }
    }
}

#[test]
fn every_documented_change_is_planned_as_the_page_says() {
    let planned: BTreeMap<_, _> =
        cases().iter().map(|case| (case.row.clone(), result(case).to_owned())).collect();
    assert_eq!(planned.len(), cases().len());
    let documented = documented();
    let of_one = |all: &BTreeMap<String, String>, others: &BTreeMap<String, String>| {
        let rows = all.iter().filter(|(row, result)| others.get(*row) != Some(*result));
        rows.map(|(row, result)| format!("{row} | {result}")).collect::<Vec<_>>()
    };
    let none = Vec::<String>::new();
    let differences = (of_one(&documented, &planned), of_one(&planned, &documented));
    assert_eq!(differences, (none.clone(), none), "rows of the page, and cases, that differ");
}
