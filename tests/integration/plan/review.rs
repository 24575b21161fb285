//! Tests of a plan in the formats that people review. Each format of small plans is a snapshot in `tests/review`, and
//! the formats are also correct for hostile values and for ten thousand sessions.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::LazyLock;

use seedbed::manifest;
use seedbed::name::PortBlock;
use seedbed::observe::{Observation, PortOwner, PortsInUse};
use seedbed::plan::{self, AppliedPlan, Damage, DamageKind, Plan};
use seedbed::provider::{Registry, git_worktree};
use seedbed::review::Review;
use seedbed::review::text::Style;
use snapbox::{Data, assert_data_eq};

use crate::fixtures::repository;
use crate::friendly::friendly;

/// Manifest of a lead, coders that share its ports, and a reviewer.
pub(crate) const SMALL: &str = r#"
version = 1
swarm = "shop"

[session.lead]
resources = ["git-worktree", { kind = "port-range", names = ["http", "db"], slots = 4 }]
env = { DATABASE_URL = "postgres://localhost:{{ port.db }}/app" }
prompt = ["You coordinate."]
metadata = { team = "checkout" }
teardown = ["docker compose down"]

[session.lead.child.coder]
count = 2
resources = [
    { kind = "git-worktree", branch = "agents/{{ session.name }}" },
    { kind = "port-range", names = ["http"] },
]
setup = [["npm", "ci"], "echo {{ session.id }}"]

[session.reviewer]
resources = [{ kind = "git-worktree", target-path = "docs" }]
"#;

/// Manifest of the same swarm a week later: one coder fewer, another that is broken, a reviewer with another directory,
/// a new reviewer, and a changed prompt for the lead.
const LATER: &str = r#"
version = 1
swarm = "shop"

[session.lead]
resources = ["git-worktree", { kind = "port-range", names = ["http", "db"], slots = 4 }]
env = { DATABASE_URL = "postgres://localhost:{{ port.db }}/shop" }
prompt = ["You coordinate."]
metadata = { team = "checkout" }
teardown = ["docker compose down"]

[session.lead.child.coder]
resources = [
    { kind = "git-worktree", branch = "agents/{{ session.name }}" },
    { kind = "port-range", names = ["http"] },
]

[session.lead.child.coder-0]
resources = [
    { kind = "git-worktree", branch = "agents/{{ session.name }}" },
    { kind = "port-range", names = ["http"] },
]
setup = [["npm", "ci"], "echo {{ session.id }}"]

[session.reviewer]
resources = [{ kind = "git-worktree", target-path = "src" }]
"#;

/// Manifest with values that have a meaning in a terminal, HTML, Markdown or Mermaid. They are escaped in TOML, so that
/// the characters themselves reach the plan.
pub(crate) const HOSTILE: &str = r#"
version = 1
swarm = "hostile"

[session.a]
resources = [
    { kind = "git-worktree", branch = "`pipe|<b>&`", base-ref = "v1|`<i>" },
    "port-range",
]
env = { A = "<script>alert(1)</script>", B = "\"'&`|\\|``", C = "one\ntwo\r\n| three |", D = "]]> --> </details></style>" }
prompt = ["<img src=x onerror=alert(1)>\n\n# Heading\n```\n\u202Eevil", "@everyone #1 www.example.org [x](javascript:alert(1))"]
metadata = { "<b>\"key'" = ["<i>", { x = "|`" }] }
setup = ["echo '<script>' | tee `x`", ["printf", "%s\n", "--></script>"]]
teardown = ["true; echo \"];classDef x fill:#f00;\""]
"#;

/// Plan of leads with coders of their own, ten thousand sessions; planned once for all tests.
pub(crate) static LARGE: LazyLock<Plan> = LazyLock::new(|| {
    let text = r#"
version = 1
swarm = "large"
[defaults.port-range]
block-size = 10
block-count = 1600
[session.lead]
count = 1000
resources = ["git-worktree", "port-range"]
env = { AT = "{{ worktree.path }}" }
prompt = ["You are {{ session.id }}."]
[session.lead.child.coder]
count = 9
resources = [{ kind = "git-worktree", branch = "agents/{{ session.id }}" }, "port-range"]
"#;
    let plan = planned(text, None);
    assert_eq!(plan.sessions().len(), 10_000);
    plan
});

/// Returns a distinct word for each number, so that sessions with such names differ.
fn word(number: usize) -> String {
    format!("s{number}")
        .chars()
        .map(|c| c.to_digit(10).map_or(c, |digit| "ghijklmnop".as_bytes()[digit as usize].into()))
        .collect()
}

/// Returns the plan of a manifest on a host that permits everything.
pub(crate) fn planned(text: &str, applied: Option<&AppliedPlan>) -> Plan {
    let registry = Registry::built_in();
    let manifest = manifest::parse(text, &registry.kinds()).unwrap_or_else(|faults| panic!("{faults:#?}"));
    let observation = friendly(&plan::queries(&manifest, &registry));
    plan::plan(&manifest, &registry, &observation, applied).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

/// Returns the plan of [`LATER`] against the applied [`SMALL`], with one of its worktrees missing.
pub(crate) fn difference() -> Plan {
    let applied = planned(SMALL, None);
    let coder = applied.sessions()[1].path.clone();
    let gone = Damage::new(DamageKind::Lost, "the worktree is gone".to_owned());
    let mut applied = AppliedPlan::new(applied);
    applied.broken.insert((coder, git_worktree::KIND.to_owned()), gone);
    planned(LATER, Some(&applied))
}

/// Returns a host on which other owners have ports around those of a plan: a lease and a lock file beside its first
/// block, sockets in and after the block.
pub(crate) fn crowded(plan: &Plan) -> Observation {
    let port = |name: &str| plan.sessions()[0].env[name].parse::<u32>().unwrap();
    let (start, end) = (port("AGENT_PORT_RANGE_START"), port("AGENT_PORT_RANGE_END"));
    let taken = |start, end, by| PortsInUse::new(PortBlock::new(start, end).unwrap(), by);
    let lease = |session: &str| PortOwner::Lease { session: session.to_owned(), owner: "0".repeat(32) };
    let lock = PortOwner::LockFile { name: "a.lock".to_owned(), session: None, owner: None };
    let mut observation = Observation::default();
    observation.ports_in_use = vec![
        taken(start - 32, start - 1, lease("other/<b>one")),
        taken(start, start, PortOwner::Socket { protocol: "tcp".to_owned() }),
        taken(end + 1, end + 8, lock),
        taken(end + 20, end + 20, PortOwner::Socket { protocol: "udp".to_owned() }),
    ];
    observation.ephemeral = PortBlock::new(32768, 60999);
    observation
}

fn review<'a>(plan: &'a Plan, notices: &'a [String]) -> Review<'a> {
    Review::new(plan).with_notices(notices)
}

/// `SNAPSHOTS=overwrite cargo test` rewrites the snapshots; read every one that changed.
#[track_caller]
fn check(rendered: String, name: &str) {
    assert_data_eq!(rendered, Data::read_from(&repository("tests/review").join(name), None).raw());
}

#[test]
fn text_of_small_plans() {
    let notices = ["a block overlaps the ephemeral range".to_owned()];
    let small = planned(SMALL, None);
    check(review(&small, &notices).text(Style::default()), "small.txt");
    check(review(&difference(), &[]).text(Style::default()), "difference.txt");
    let full = Style::default().with_full(true);
    check(review(&small, &[]).text(full), "small-full.txt");
    check(review(&planned(HOSTILE, None), &[]).text(full), "hostile.txt");
}

#[test]
fn text_fits_its_width_and_is_complete() {
    let plan = planned(SMALL, None);
    let review = review(&plan, &[]);
    let words = |text: &str| -> String {
        text.chars().filter(|c| !c.is_whitespace() && !"│├└─".contains(*c)).collect()
    };
    let unbounded = review.text(Style::default());
    for width in [24, 40, 79, 120] {
        let text = review.text(Style::default().with_width(Some(width)));
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
        assert_eq!(words(&text), words(&unbounded), "{width}");
    }
    check(review.text(Style::default().with_width(Some(60))), "small-60.txt");
    // Narrower than any terminal, and no width at all.
    assert!(review.text(Style::default().with_width(Some(1))).contains("coder-1"));
}

#[test]
fn text_without_colour_is_the_same() {
    let plan = difference();
    let review = review(&plan, &[]);
    let coloured = review.text(Style::default().with_color(true));
    for color in ["31", "32", "33", "35", "36", "2"] {
        assert!(coloured.contains(&format!("\u{1b}[{color}m")), "{color}: {coloured:?}");
    }
    let mut bare = String::new();
    for part in coloured.split('\u{1b}') {
        bare.push_str(part.split_once('m').filter(|_| part.starts_with('[')).map_or(part, |(_, rest)| rest));
    }
    assert_eq!(bare, review.text(Style::default()));
}

#[test]
#[ignore = "`every_case` runs it"]
fn sessions_that_are_alike_are_one_entry_in_every_case() {
    let plan = &*LARGE;
    let text = review(plan, &[]).text(Style::default());
    check(text, "large.txt");
    let full = review(plan, &[]).text(Style::default().with_full(true));
    let words: HashSet<&str> = full.split_whitespace().collect();
    for session in plan.sessions() {
        assert!(words.contains(session.working_directory.to_str().unwrap()), "{}", session.path);
    }
}

#[test]
fn differing_sessions_are_never_folded() {
    let one = |more: &str| {
        let mut text = "version = 1\nswarm = \"s\"\n".to_owned();
        for at in 0..12 {
            let more = if at == 5 { more } else { "" };
            let _ = writeln!(text, "[session.a-{at}]\nenv = {{ AT = \"{at}\" }}\n{more}");
        }
        review(&planned(&text, None), &[]).text(Style::default())
    };
    assert!(one("").contains("a-0 … a-11  (12 sessions)"), "{}", one(""));
    for more in [
        "metadata.x = 1",
        "prompt = [\"p\"]",
        "setup = [\"true\"]",
        "resources = [\"port-range\"]",
        "child.b = {}",
    ] {
        let text = one(more);
        assert!(text.contains("+ a-5\n") && !text.contains("a-11  ("), "{more}: {text}");
    }
    let hidden = one("").replace("a-0 … a-11", "");
    assert!(!hidden.contains("a-5"));
}

#[test]
fn markdown_of_small_plans() {
    let notices = ["a block overlaps the ephemeral range".to_owned()];
    check(review(&planned(SMALL, None), &notices).markdown(), "small.md");
    check(review(&difference(), &[]).markdown(), "difference.md");
    check(review(&planned(HOSTILE, None), &[]).markdown(), "hostile.md");
    check(review(&LARGE, &[]).markdown(), "large.md");
}

#[test]
fn markdown_fits_into_a_comment_and_counts_what_does_not() {
    let mut text = "version = 1\nswarm = \"many\"\n".to_owned();
    for at in 0..3000 {
        let word = word(at);
        let _ = writeln!(text, "[session.{word}]\nresources = [\"git-worktree\"]\nmetadata.{word} = \"|\"");
    }
    let plan = planned(&text, None);
    let page = review(&plan, &[]).markdown();
    assert!(page.len() <= seedbed::review::markdown::LIMIT, "{}", page.len());
    let rows = page.lines().filter(|line| line.starts_with("| `+`")).count();
    assert!(rows > 100, "{rows}");
    let told = page.matches("<summary>").count();
    assert!(told > 10, "{told}");
    let number = |words: &str| {
        let before = page.split(words).next().unwrap();
        let digits =
            before.rsplit(|c: char| !c.is_ascii_digit() && c != ',').find(|digits| !digits.is_empty());
        digits.unwrap().replace(',', "").parse::<usize>().unwrap()
    };
    assert_eq!(rows + number(" more sessions do not fit"), 3000);
    assert_eq!(told + number("; `seedbed plan -v` shows them"), 3000);
    // One value alone is larger than a comment.
    let text =
        format!("version = 1\nswarm = \"s\"\n[session.a]\nenv = {{ A = \"{}\" }}\n", "`".repeat(100_000));
    let page = review(&planned(&text, None), &[]).markdown();
    assert!(page.len() < 1000 && page.contains("do not fit into a comment: 1;"), "{page}");
}

#[test]
fn mermaid_of_small_plans() {
    check(review(&planned(SMALL, None), &[]).mermaid(), "small.mmd");
    check(review(&difference(), &[]).mermaid(), "difference.mmd");
    check(review(&planned(HOSTILE, None), &[]).mermaid(), "hostile.mmd");
    check(review(&LARGE, &[]).mermaid(), "large.mmd");
}

#[test]
fn mermaid_draws_what_can_be_drawn_and_counts_the_rest() {
    let mut text = "version = 1\nswarm = \"many\"\n".to_owned();
    for at in 0..3000 {
        let word = word(at);
        let _ = writeln!(text, "[session.{word}]\nmetadata.{word} = 1");
    }
    let graph = review(&planned(&text, None), &[]).mermaid();
    assert!(graph.len() < 50_000 && graph.matches("-->").count() <= 500, "{}", graph.len());
    let drawn = graph.matches(":::create").count();
    assert!(graph.contains(&format!("… and {} more sessions", "2,600")), "{drawn}");
    assert_eq!(drawn, 400);
}

/// Returns the page without its style, its script and their hashes, which are files of their own.
fn bare(page: &str) -> String {
    let mut page = page.to_owned();
    for (open, close) in
        [("<style>", "</style>"), ("<script>", "</script>"), ("'sha256-", "'"), ("'sha256-", "'")]
    {
        let begin = page.find(open).unwrap();
        let end = begin + open.len() + page[begin + open.len()..].find(close).unwrap() + close.len();
        page.replace_range(begin..end, "…");
    }
    page
}

#[test]
fn html_of_small_plans() {
    let notices = ["a block <overlaps> the ephemeral range".to_owned()];
    let plan = planned(SMALL, None);
    let observation = crowded(&plan);
    let page = Review::new(&plan).with_notices(&notices).with_observation(&observation).html();
    check(bare(&page), "small.html");
    check(bare(&review(&difference(), &[]).html()), "difference.html");
    check(bare(&review(&planned(HOSTILE, None), &[]).html()), "hostile.html");
}

#[test]
#[ignore = "`every_case` runs it"]
fn html_of_a_large_plan_has_every_session_and_stays_small_in_every_case() {
    let page = review(&LARGE, &[]).html();
    assert_eq!(page.matches("<tr data-ports=").count(), 10_000);
    assert!(page.len() < 4_000_000, "{}", page.len());
    // Text that cannot be folded is printed up to a limit, with a note that the rest is missing.
    let mut text = "version = 1\nswarm = \"many\"\n".to_owned();
    for at in 0..60 {
        let (word, value) = (word(at), "v".repeat(100_000));
        let _ = writeln!(text, "[session.{word}]\nmetadata.{word} = \"{value}\"");
    }
    let page = review(&planned(&text, None), &[]).html();
    assert_eq!(page.matches("<li class=\"create\" id=").count(), 60);
    assert!(page.len() < 5_000_000 && page.contains("would make this page too large"), "{}", page.len());
}
