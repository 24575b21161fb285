//! Tests of the recipes for test workers: the files and commands of the page, as they are written, with real runners.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::pages::Page;
use super::root;
use crate::sandbox::{Outcome, Sandbox, send, wait_until};

/// Test of a crate: it owns the port of its session alone while it works.
const RUST_TEST: &str = r#"
use std::net::TcpListener;
fn works_alone() {
    let port: u16 = std::env::var("AGENT_PORT_HTTP").unwrap().parse().unwrap();
    let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    if let Some(marker) = option_env!("MARKER") { std::fs::write(marker, "").unwrap(); }
    std::thread::sleep(std::time::Duration::from_millis(150));
}
"#;

/// Tests that do the same for pytest.
const PYTHON_TEST: &str = r#"
import os, pathlib, socket, time
import pytest
@pytest.mark.parametrize("number", range(24))
def test_works_alone(number):
    with socket.create_server(("127.0.0.1", int(os.environ["AGENT_PORT_HTTP"]))):
        pathlib.Path(os.environ["MARKER"]).touch()
        time.sleep(0.15)
"#;

/// Recipe of the page, in a repository.
struct Recipe {
    sandbox: Sandbox,
    runners: PathBuf,
    line: String,
}

impl Recipe {
    /// Writes the manifest of the page and the block that begins with `# FILE` or `// FILE`; `line` begins the command of
    /// the recipe. `None` if the runners are not installed.
    fn new(file: &str, line: &str) -> Option<Self> {
        let runners = root().join("target/runners/bin");
        if !runners.join("pytest").exists() {
            eprintln!("NOT TESTED: target/runners is missing; .ci/setup creates it");
            return None;
        }
        let page = Page::read("docs/src/guide/test-workers.md");
        let blocks = page.blocks();
        let block = |name: &str| {
            let heads = [format!("# {name}\n"), format!("// {name}\n")];
            let found = blocks.iter().find(|block| heads.iter().any(|head| block.text.starts_with(head)));
            found.unwrap_or_else(|| panic!("the page has no {name}")).text
        };
        let sandbox = Sandbox::new();
        let manifest = block("seedbed.toml");
        // The sandbox has its own range of ports.
        let sessions = &manifest[manifest.find("[session.").unwrap()..];
        sandbox.manifest(sessions);
        sandbox.write(file, block(file));
        let line = blocks.iter().find(|block| block.language == "sh" && block.text.contains(line)).unwrap();
        Some(Self { runners, line: line.text.trim().to_owned(), sandbox })
    }

    /// Returns the command of the recipe, as it is written.
    fn command(&self) -> Command {
        self.command_of(&self.line)
    }

    fn command_of(&self, line: &str) -> Command {
        let mut shell = self.sandbox.program("sh", &self.sandbox.repository);
        let programs = PathBuf::from(env!("CARGO_BIN_EXE_seedbed")).parent().unwrap().to_owned();
        let path = std::env::var("PATH").unwrap();
        shell.env("PATH", format!("{}:{}:{path}", programs.display(), self.runners.display()));
        let home = PathBuf::from(std::env::var("HOME").unwrap_or_default());
        for (variable, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            shell.env(variable, std::env::var_os(variable).unwrap_or_else(|| home.join(folder).into()));
        }
        shell.env("MARKER", self.marker());
        shell.args(["-euc", &format!("exec {line}")]).stdout(Stdio::piped()).stderr(Stdio::piped());
        shell
    }

    fn marker(&self) -> PathBuf {
        self.sandbox.top.join("marker")
    }

    /// Runs the recipe, twice at once, and after a kill in the middle; nothing remains.
    fn check(&self, passed: &str) {
        let green = |outcome: Outcome| {
            assert_eq!(outcome.code, 0, "{outcome:?}");
            assert!(
                [&outcome.stdout, &outcome.stderr].iter().any(|text| text.contains(passed)),
                "{outcome:?}"
            );
        };
        green(Outcome::of(self.command().output().unwrap()));
        let runs = [self.command().spawn().unwrap(), self.command().spawn().unwrap()];
        for run in runs {
            green(Outcome::of(run.wait_with_output().unwrap()));
        }

        let _ = fs::remove_file(self.marker());
        let mut killed = self.command();
        let killed = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("tests run", || self.marker().exists());
        send(Signal::KILL, &killed);
        killed.wait_with_output().unwrap();
        green(Outcome::of(self.command().output().unwrap()));
        let swarms = || self.sandbox.ok(&["list", "--json"]).json()["swarms"].clone();
        wait_until("nothing remains", || {
            self.sandbox.seedbed(&["recover"]);
            swarms() == json!([])
        });
    }

    /// Fails if the runner starts more workers than there are sessions.
    fn refuses_a_ninth_worker(&self, of_page: &str, nine: &str, says: &[&str]) {
        let line = self.line.replace(of_page, nine);
        assert_ne!(line, self.line);
        let outcome = Outcome::of(self.command_of(&line).output().unwrap());
        assert_ne!(outcome.code, 0);
        let text = [outcome.stdout, outcome.stderr].concat();
        assert!(says.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[test]
#[ignore = "`every_case` runs it"]
fn workers_of_nextest_have_a_session_each_in_every_case() {
    let Some(recipe) = Recipe::new(".config/nextest.toml", "cargo nextest run") else { return };
    let sandbox = &recipe.sandbox;
    sandbox.write("Cargo.toml", "[package]\nname = \"shop\"\nedition = \"2021\"\n");
    sandbox.write("src/lib.rs", "");
    let test = |tests: String, number| format!("{tests}#[test]\nfn test_{number}() {{ works_alone() }}\n");
    let tests = (0..24).fold(RUST_TEST.to_owned(), test);
    sandbox.write("tests/port.rs", &tests);
    recipe.check("24 tests run: 24 passed");
    recipe.refuses_a_ninth_worker(
        "--test-threads 8",
        "--test-threads 9",
        &["none for worker 8", "`--test-threads 8`"],
    );
}

#[test]
#[ignore = "`every_case` runs it"]
fn workers_of_pytest_xdist_have_a_session_each_in_every_case() {
    let Some(recipe) = Recipe::new("conftest.py", "pytest -n") else { return };
    recipe.sandbox.write("test_port.py", PYTHON_TEST);
    recipe.check("24 passed");
    recipe.refuses_a_ninth_worker("-n 8", "-n 9", &["none for worker 8", "`-n 8`"]);
    // Without pytest-xdist, all tests are worker 0's.
    let outcome = Outcome::of(recipe.command_of("seedbed run -- pytest").output().unwrap()).expect(0);
    assert!(outcome.stdout.contains("24 passed"), "{outcome:?}");
}

#[test]
fn servers_of_playwright_have_a_session_each() {
    let file = "playwright.config.mjs";
    let Some(recipe) = Recipe::new(file, "playwright test") else { return };
    if !crate::cli::shells::installed("node") {
        eprintln!("NOT TESTED: node is not installed");
        return;
    }
    let sandbox = &recipe.sandbox;
    sandbox.ok(&["apply", "--quiet"]);
    let print = format!("import config from './{file}'; console.log(JSON.stringify(config))");
    let line = format!("node --input-type=module -e \"{print}\"");
    let outcome = Outcome::of(recipe.command_of(&line).output().unwrap()).expect(0);
    let config: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let servers = config["webServer"].as_array().unwrap();
    assert_eq!((servers.len(), &config["workers"]), (8, &json!(8)));
    for (worker, server) in servers.iter().enumerate() {
        let name = format!("worker-{worker}");
        let port = sandbox.ok(&["exec", &name, "--", "sh", "-c", "echo $AGENT_PORT_HTTP"]).stdout;
        assert_eq!(server["port"].to_string(), port.trim());
        assert_eq!(server["env"]["TEST_PARALLEL_INDEX"], worker.to_string());
        assert_eq!(server["command"], "seedbed exec --slot -- node server.mjs");
    }
}
