//! Tests of manifests from strangers: for any content, computing ends within bounds of time and memory, and on the
//! first signal.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::sandbox::{Outcome, Sandbox, send, wait_until};

/// Bytes of address space, in KiB: a parallel run without any sessions takes a tenth.
const MEMORY: &str = "2000000";

/// Returns the rules that the manifest breaks, as found by a `validate` that has little memory and stack.
fn rules(sandbox: &Sandbox, manifest: &str) -> Vec<String> {
    sandbox.manifest(manifest);
    let validate = sandbox.command(&["validate", "--json"]);
    let mut bounded = Command::new("sh");
    bounded
        .args(["-c", "ulimit -v $0; exec timeout -s KILL 20 \"$@\"", MEMORY])
        .arg(validate.get_program())
        .args(validate.get_args());
    bounded.current_dir(validate.get_current_dir().unwrap()).env_clear();
    bounded.envs(validate.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let begun = Instant::now();
    let outcome = Outcome::of(bounded.output().unwrap());
    assert!(begun.elapsed() < Duration::from_secs(20), "{manifest:.100}");
    assert_eq!(outcome.stderr, "", "{manifest:.100}");
    let diagnostics = outcome.json();
    diagnostics["diagnostics"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|f| f["rule"].as_str().unwrap().to_owned())
        .collect()
}

fn env(template: &str) -> String {
    format!("[session.a]\nenv = {{ A = '''{template}''' }}\n")
}

#[test]
fn unclosed_template_is_a_diagnostic() {
    let sandbox = Sandbox::new();
    let list = format!("[{}1]", "1,".repeat(99));
    let nested = |text: &str| {
        let loops = format!("{{% for a in {list} %}}").repeat(5);
        format!("{loops}{text}{}", "{% endfor %}".repeat(5))
    };
    let grow = "|replace('x', 'xxxxxxxxxx')".repeat(9);
    for (template, rule) in [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "template-syntax"),
        (&nested(""), "template-size"),
        (&nested("some text"), "template-size"),
        (&format!("{{{{ 1{} }}}}", "+1".repeat(50_000)), "template-size"),
        (&format!("{{{{ 1{} }}}}", "+1".repeat(20_000)), "template-size"),
        (&format!("{{{{ {}1{} }}}}", "(".repeat(120), ")".repeat(120)), "template-syntax"),
        (&format!("{{% if 0 %}}{}{{% endif %}}", "{%elif 0%}".repeat(5_000)), "template-size"),
        ("{{ 'x' * 9999999999 }}", "template-size"),
        (&format!("{{{{ ('x' * 10){grow} }}}}"), "template-size"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "template-syntax"),
        ("{% include 'x' %}", "template-syntax"),
        ("{{ '%999999999d' | format(1) }}", "template-syntax"),
    ] {
        assert_eq!(rules(&sandbox, &env(template)), [rule], "{template:.100}");
    }
    let branch = nested("x");
    let worktree = format!("[session.a]\nresources = [{{ kind = \"git-worktree\", branch = '{branch}' }}]\n");
    assert_eq!(rules(&sandbox, &worktree), ["template-size"]);
}

/// The recursive compilation of the engine stays within the stack of a thread.
#[test]
fn the_longest_templates_can_be_compiled() {
    let sandbox = Sandbox::new();
    for expression in [
        format!("1{}", "+1".repeat(127)),
        format!("swarm{}", "|upper".repeat(127)),
        format!("{}1", "not ".repeat(140)),
        format!("{}1{}", "[".repeat(70), "]".repeat(70)),
        format!("1{}", " if 1 else 1".repeat(60)),
    ] {
        assert_eq!(
            rules(&sandbox, &env(&format!("{{{{ {expression} }}}}"))),
            [] as [&str; 0],
            "{expression}"
        );
    }
    let elifs = format!("{{% if 0 %}}{}{{% endif %}}", "{%elif 0%}".repeat(254));
    assert_eq!(rules(&sandbox, &env(&elifs)), [] as [&str; 0]);
}

#[test]
fn manifest_that_expands_too_far_is_a_diagnostic() {
    let sandbox = Sandbox::new();
    let long = "x".repeat(100_000);
    let globs = "'a', ".repeat(2_000);
    for (manifest, rule) in [
        ("[session.a]\ncount = 10000\n[session.a.child.b]\ncount = 10000\n".to_owned(), "too-many-sessions"),
        (format!("[session.a]\ncount = 10000\nenv = {{ A = \"{long}\" }}\n"), "too-large"),
        (format!("[session.a]\ncount = 10000\nmetadata = {{ a = [{{ b = \"{long}\" }}] }}\n"), "too-large"),
        (
            format!(
                "[session.a]\ncount = 10000\nresources = [{{ kind = \"git-worktree\", copy = [{globs}] }}]\n"
            ),
            "too-large",
        ),
        (
            format!(
                "[defaults.git-worktree]\ncopy = [{globs}]\n[session.a]\nresources = [\"git-worktree\"]\ncount = 10000\n"
            ),
            "too-large",
        ),
        ("[session.a]\ncount = 400\nenv = { A = \"{{ 'x' * 1000000 }}\" }\n".to_owned(), "too-large"),
        (
            format!("[session.a]\nmetadata = {{ a = {}{} }}\n", "[".repeat(100_000), "]".repeat(100_000)),
            "syntax",
        ),
        (format!("[session.{}a]\n", "a.child.".repeat(20_000)), "syntax"),
    ] {
        assert_eq!(rules(&sandbox, &manifest), [rule], "{manifest:.100}");
    }
}

/// Computing takes some seconds, regardless of the command's other work.
#[test]
fn the_first_signal_ends_what_computes() {
    let sandbox = Sandbox::new();
    let mut manifest = String::new();
    for at in 0..10 {
        let _ =
            write!(manifest, "[session.a{at}]\ncount = 9999\nenv = {{ A = \"{{{{ session.index }}}}\" }}\n");
    }
    sandbox.manifest(&manifest);
    let signals = [Signal::INT, Signal::TERM, Signal::HUP, Signal::TERM];
    for (args, signal) in
        [&["validate"][..], &["plan"], &["doctor"], &["explain", "20000"]].into_iter().zip(signals)
    {
        let run = sandbox.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Fields 14 and 15, in hundredths of a second; Git runs before anything is computed.
        let used = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", run.id())).unwrap();
            let after = stat.rsplit(") ").next().unwrap();
            after.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
        };
        wait_until("it computes", || used() > 80);
        let sent = Instant::now();
        send(signal, &run);
        let outcome = Outcome::of(run.wait_with_output().unwrap()).expect(130);
        assert!(sent.elapsed() < Duration::from_secs(1), "{args:?} took {:?}", sent.elapsed());
        assert_eq!(outcome.stdout, "", "{args:?}");
    }
}
