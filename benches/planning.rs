//! Measures the time and memory of planning, by the number of sessions: `cargo bench --bench planning`.
//!
//! Planning goes from the text of a manifest to a plan with its digest. The observed host permits everything, and only
//! the text is read. Then the plan is printed as text, as `plan` writes it to a file, and as JSON, as `plan -o` saves
//! it. Each size is measured in a process of its own, for a separate memory peak; times are medians. Last, the
//! benchmark reports every diagnostic of a manifest of 2 MB with 1,000 of them.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads its arguments and starts itself again")]

#[path = "../tests/integration/friendly.rs"]
mod friendly;

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use seedbed::manifest::Report;
use seedbed::provider::Registry;
use seedbed::review::Review;
use seedbed::review::text::Style;
use seedbed::{manifest, plan};

/// Number of times that each size is planned.
const ROUNDS: usize = 5;

fn main() {
    // `cargo bench` passes `--bench` to every benchmark.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [shape, sessions] = &arguments[..] {
        measure(shape, sessions.parse().expect("a number"));
        return;
    }
    if let [diagnostics] = &arguments[..]
        && diagnostics == "faults"
    {
        measure_faults();
        return;
    }
    println!("| manifest | sessions | text | parse and check | plan | both | show | save | peak memory |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let own = std::env::current_exe().expect("this program has a path");
    for shape in ["tables", "replicas"] {
        for sessions in ["1000", "10000", "100000"] {
            let output = Command::new(&own).args([shape, sessions]).output().expect("this program runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            print!("{}", String::from_utf8_lossy(&output.stdout));
        }
    }
    println!();
    measure_faults();
}

/// Measures a manifest of 4,000 sessions, with an unknown key in every fourth.
fn measure_faults() {
    let mut text = String::from("version = 1\nswarm = \"bench\"\n");
    let filler = "x".repeat(450);
    for at in 0..4000 {
        let key = if at % 4 == 0 { "enviro" } else { "env" };
        let _ = write!(text, "\n[session.s{at}]\n{key} = {{ A = \"1\" }}\nprompt = [\"{filler}\"]\n");
    }
    let kinds = Registry::built_in().kinds();
    let (mut finding, mut saying, mut listing) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let diagnostics = manifest::parse(&text, &kinds).expect_err("the manifest has faults");
        let report = Report::new("bench.toml".to_owned(), &text, diagnostics);
        finding.push(begun.elapsed());
        let begun = Instant::now();
        assert_eq!(report.diagnostics().count(), 1000);
        listing.push(begun.elapsed());
        let begun = Instant::now();
        let shown = format!("{:?}", miette::Report::new(report));
        saying.push(begun.elapsed());
        assert!(shown.contains("unknown key `enviro`"));
    }
    println!(
        "1,000 faults in {} KB: found in {} ms, as data in {} ms, as text in {} ms",
        text.len() / 1024,
        median(finding).as_millis(),
        median(listing).as_millis(),
        median(saying).as_millis(),
    );
}

fn measure(shape: &str, sessions: usize) {
    let text = text(shape, sessions);
    let registry = Registry::built_in();
    let kinds = registry.kinds();
    let mut parsing = Vec::new();
    let mut planning = Vec::new();
    let mut showing = Vec::new();
    let mut saving = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let manifest = manifest::parse(&text, &kinds).expect("the manifest is valid");
        parsing.push(begun.elapsed());
        let begun = Instant::now();
        let observation = friendly::friendly(&plan::queries(&manifest, &registry));
        let plan = plan::plan(&manifest, &registry, &observation, None).expect("the manifest can be planned");
        planning.push(begun.elapsed());
        assert_eq!(plan.sessions().len(), sessions);
        let begun = Instant::now();
        let text = Review::new(&plan).text(Style::default());
        showing.push(begun.elapsed());
        assert!(text.contains(plan.digest()));
        let begun = Instant::now();
        let mut json = Vec::new();
        plan.write(&mut json).expect("a plan is JSON");
        saving.push(begun.elapsed());
        drop(json);
    }
    let (parse, plan) = (median(parsing), median(planning));
    println!(
        "| {shape} | {sessions} | {} KB | {} ms | {} ms | {} ms | {} ms | {} ms | {} MB |",
        text.len() / 1024,
        parse.as_millis(),
        plan.as_millis(),
        (parse + plan).as_millis(),
        median(showing).as_millis(),
        median(saving).as_millis(),
        peak_megabytes().map_or_else(|| "?".to_owned(), |peak| peak.to_string()),
    );
}

/// Returns a manifest in which one session in ten is a lead and the rest are its children: as a table each, or as
/// replicas of one table. Ports run out past 16,000 sessions, so that only smaller swarms have any.
fn text(shape: &str, sessions: usize) -> String {
    let ports = sessions <= 10_000;
    let resources = if ports { r#"["git-worktree", "port-range"]"# } else { r#"["git-worktree"]"# };
    let mut text = String::from(
        "version = 1\nswarm = \"bench\"\n\n[defaults.port-range]\nblock-size = 10\nblock-count = 1600\n\n",
    );
    let session = |text: &mut String, header: &str, more: &str| {
        let _ = writeln!(
            text,
            "[{header}]\n{more}env = {{ ROLE = \"{{{{ session.name }}}}\", AT = \"{{{{ worktree.path }}}}\" }}\n\
             prompt = [\"You are {{{{ session.id }}}}.\"]\n"
        );
    };
    let leads = sessions / 10;
    if shape == "tables" {
        for lead in 0..leads {
            session(&mut text, &format!("session.lead-{lead}"), &format!("resources = {resources}\n"));
            for coder in 0..9 {
                session(&mut text, &format!("session.lead-{lead}.child.coder-{coder}"), "");
            }
        }
    } else {
        session(&mut text, "session.lead", &format!("count = {leads}\nresources = {resources}\n"));
        session(&mut text, "session.lead.child.coder", "count = 9\n");
    }
    text
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Returns the peak memory of this process, in megabytes; `None` if the system does not report it.
fn peak_megabytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1024)
}
