//! Tests of files that sessions have: planned, written, hidden from Git, inspected, updated in place, and removed.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::shells::{installed, not_tested};
use crate::fixtures::repository;
use crate::sandbox::{Sandbox, sessions};

const TREE: &str = r#"
[defaults.session.files]
".env.local" = "ID={{ session.id }}\n"

[session.coder]
resources = [{ kind = "git-worktree", copy = [".env"] }, { kind = "port-range", names = ["http"] }]
[session.coder.files]
".env.local" = "PORT={{ port.http }}\nROOT={{ workspace.root }}\n"
".env" = { text = "PORT={{ port.http }}", mode = "section" }
"compose.override.yaml" = { template-file = "dev/compose.j2" }
"local/settings/app.json" = { text = "{\"session\": \"{{ session.id }}\"}\n" }

[session.other]
resources = ["git-worktree"]
"#;

const COMPOSE: &str = "services:\n  api:\n    ports: [\"{{ port.http }}:80\"]\n";

fn with_tree(tree: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("dev/compose.j2", COMPOSE);
    sandbox.write(".env", "SECRET=1\n");
    sandbox.manifest(tree);
    sandbox
}

fn read(directory: &Path, path: &str) -> String {
    fs::read_to_string(directory.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn git_status(sandbox: &Sandbox, directory: &Path) -> String {
    sandbox.git_in(directory, &["status", "--porcelain", "--untracked-files=all"])
}

fn session<'p>(plan: &'p Value, path: &str) -> &'p Value {
    sessions(plan).find(|session| session["path"] == path).unwrap()
}

#[test]
fn files_live_with_their_session() {
    let sandbox = with_tree(TREE);
    let config = fs::read_to_string(sandbox.repository.join(".git/config")).unwrap();
    let plan = sandbox.plan();
    let coder = session(&plan, "coder");
    let port = coder["env"]["AGENT_PORT_HTTP"].as_str().unwrap();
    assert_eq!(coder["files"][".env"], json!({ "text": format!("PORT={port}"), "comment": "#" }));
    assert_eq!(session(&plan, "other")["files"][".env.local"], json!({ "text": "ID=shop/other\n" }));
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("coder");
    let root = sandbox.repository.display();
    assert_eq!(read(&directory, ".env.local"), format!("PORT={port}\nROOT={root}\n"));
    assert_eq!(read(&directory, "compose.override.yaml"), COMPOSE.replace("{{ port.http }}", port));
    assert_eq!(read(&directory, "local/settings/app.json"), "{\"session\": \"shop/coder\"}\n");
    let env = read(&directory, ".env");
    assert!(
        env.starts_with("SECRET=1\n# >>> seedbed") && env.contains(&format!("\nPORT={port}\n# <<<")),
        "{env}"
    );
    assert_eq!(git_status(&sandbox, &directory), "");
    assert_eq!(git_status(&sandbox, &sandbox.directory("other")), "");
    sandbox.write("compose.override.yaml", "");
    assert!(git_status(&sandbox, &sandbox.repository).contains("?? compose.override.yaml\n"), "only there");
    fs::remove_file(sandbox.repository.join("compose.override.yaml")).unwrap();
    sandbox.ok(&["status"]);
    sandbox.ok(&["plan", "--detailed-exitcode"]);

    // A copy with a section is refreshed around it.
    sandbox.write(".env", "SECRET=2\n");
    sandbox.ok(&["apply", "--refresh"]);
    assert_eq!(read(&directory, ".env"), env.replace("SECRET=1", "SECRET=2"));
    sandbox.write(".env", "SECRET=1\n");
    sandbox.ok(&["apply", "--refresh"]);
    assert_eq!(read(&directory, ".env"), env);

    // A change of the manifest changes the section, and nothing around it.
    fs::write(directory.join(".env"), format!("OWN=1\n{env}LAST=1\n")).unwrap();
    sandbox.write("dev/compose.j2", &COMPOSE.replace(":80", ":8080"));
    let changed = TREE
        .replace("text = \"PORT", "text = \"LEVEL=1\\nPORT")
        .replace("\".env.local\" = \"PORT", "\".env.local\" = \"X");
    sandbox.manifest(&changed);
    let text = sandbox.seedbed(&["plan"]).stdout;
    for line in ["file .env: +LEVEL=1", "file .env.local: -PORT=", "file compose.override.yaml: -"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let before = sandbox.directory("coder");
    sandbox.ok(&["apply"]);
    assert_eq!(before, sandbox.directory("coder"));
    let env = read(&directory, ".env");
    assert!(env.starts_with("OWN=1\nSECRET=1\n# >>>") && env.ends_with("<<<\nLAST=1\n"), "{env}");
    assert!(env.contains(&format!("\nLEVEL=1\nPORT={port}\n")), "{env}");
    assert_eq!(
        read(&directory, "compose.override.yaml"),
        COMPOSE.replace("{{ port.http }}:80", &format!("{port}:8080"))
    );

    // An edited file is work, also where Git ignores it; what was generated is put back, and the version of the session kept.
    sandbox.seedbed(&["destroy", "coder"]).expect(69).says(&["1 untracked"]);
    fs::write(directory.join(".env"), env.replace("OWN=1\n", "").replace("LAST=1\n", "")).unwrap();
    fs::write(directory.join("compose.override.yaml"), "mine\n").unwrap();
    fs::remove_file(directory.join(".env.local")).unwrap();
    sandbox.seedbed(&["destroy", "coder"]).expect(69).says(&["1 untracked"]);
    let status = sandbox.seedbed(&["status"]).stdout;
    for part in ["`.env.local` does not exist", "`compose.override.yaml` was changed"] {
        assert!(status.contains(part), "{part}: {status}");
    }
    sandbox.ok(&["status", "--repair"]);
    sandbox.ok(&["status"]);
    assert_eq!(read(&directory, "compose.override.yaml.seedbed-1"), "mine\n");
    assert!(read(&directory, ".env.local").starts_with("X="));
    let rescued = sandbox.ok(&["destroy", "coder", "--rescue", "--yes"]);
    assert!(rescued.stdout.contains("refs/") || rescued.stderr.contains("refs/"), "{rescued:?}");

    // Entries that the manifest does not have any more are removed.
    sandbox.manifest(&changed);
    sandbox.ok(&["apply"]);
    let at = changed.find("\".env\" =").unwrap();
    let end = changed.find("[session.other]").unwrap();
    sandbox.manifest(&[&changed[..at], &changed[end..]].concat());
    sandbox.ok(&["apply"]);
    assert_eq!(read(&directory, ".env"), "SECRET=1\n");
    assert!(!directory.join("local").exists() && !directory.join("compose.override.yaml").exists());
    sandbox.ok(&["destroy"]);
    assert_eq!(fs::read_to_string(sandbox.repository.join(".git/config")).unwrap(), config);
}

#[test]
fn edited_file_that_git_ignores_is_rescued() {
    let sandbox = with_tree(
        "[session.a]\nresources = [\"git-worktree\"]\nfiles = { \"local/x\" = \"one\", \"y\" = \"one\" }\n",
    );
    sandbox.write(".gitignore", "local/\n");
    sandbox.commit("ignore");
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    fs::write(directory.join("local/x"), "two").unwrap();
    sandbox.seedbed(&["destroy"]).expect(69).says(&["1 untracked"]);
    sandbox.ok(&["destroy", "--rescue"]);
    let reference = sandbox.git(&["for-each-ref", "--format=%(refname)", "refs/seedbed/rescue"]);
    let listed = sandbox.git(&["ls-tree", "-r", "--name-only", &reference]);
    assert!(listed.contains("local/x") && !listed.contains("\ny\n"), "{listed}");
}

#[test]
fn failed_run_puts_files_back() {
    let tree = |text: &str, more: &str| {
        format!(
            "[session.a]\nresources = [\"git-worktree\"]\n[session.a.files]\nx = \"{text}\\n\"\n\
             y = {{ text = \"{text}\", mode = \"section\" }}\n{more}"
        )
    };
    let sandbox = with_tree(&tree("one", ""));
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    fs::write(directory.join("y"), format!("OWN\n{}", read(&directory, "y"))).unwrap();
    let (x, y) = (read(&directory, "x"), read(&directory, "y"));
    let failing = "[session.b]\nresources = [\"git-worktree\"]\nsetup = [\"false\"]\n";
    sandbox.manifest(&tree("two", &format!("z = \"new\"\n{failing}")));
    sandbox.seedbed(&["apply"]).expect(1);
    assert_eq!((read(&directory, "x"), read(&directory, "y")), (x, y));
    assert!(!directory.join("z").exists());
    sandbox.manifest(&tree("one", ""));
    sandbox.ok(&["plan", "--detailed-exitcode"]);
}

#[test]
fn files_that_cannot_be_are_diagnostics_at_their_paths() {
    let sandbox = with_tree("");
    sandbox.write("conf/app.toml", "");
    std::os::unix::fs::symlink("/etc/hosts", sandbox.repository.join("link.j2")).unwrap();
    sandbox.commit("conf");
    let resources = "resources = [{ kind = \"git-worktree\", copy = [\".env\"] }]";
    let check = |files: &str, texts: &[&str]| {
        sandbox.manifest(&format!("[session.a]\n{resources}\n[session.a.files]\n{files}\n"));
        let outcome = sandbox.seedbed(&["validate"]).expect(65);
        for text in texts {
            assert!(outcome.stderr.contains(text), "{files}: {text} is not in {}", outcome.stderr);
        }
    };
    check("\"conf/app.toml\" = \"x\"", &["[session-file]", "tracks `conf/app.toml` as a file"]);
    check("\"conf/app.toml\" = { text = \"x\", mode = \"section\" }", &["tracks `conf/app.toml`"]);
    check("\"conf\" = \"x\"", &["tracks `conf` as a directory"]);
    check("\"conf/app.toml/x\" = \"x\"", &["tracks `conf/app.toml` as a file"]);
    check("\".env\" = \"x\"", &["`copy` brings `.env`", "mode = \"section\""]);
    check("\"../x\" = \"x\"", &["is not plain"]);
    check("\"/x\" = \"x\"", &["is not relative"]);
    check("\".git/config\" = \"x\"", &["leads into a directory of Git"]);
    check("x = \"1\"\nX = \"2\"", &["cannot both be files"]);
    check("x = \"1\"\n\"x/y\" = \"2\"", &["cannot both be files"]);
    check("x = {}", &["neither `text` nor `template-file`"]);
    check("x = { text = \"\", template-file = \"dev/compose.j2\" }", &["both `text` and"]);
    check("\"x.json\" = { text = \"\", mode = \"section\" }", &["has no comments"]);
    check("x = { template-file = \"dev/none.j2\" }", &["[template-file]", "has no file `dev/none.j2`"]);
    check("x = { template-file = \"../none.j2\" }", &["[template-file]", "is not plain"]);
    check("x = { template-file = \"link.j2\" }", &["is a link"]);
    check("x = { template-file = \"dev/compose.j2\" }", &["line 3 of the file: `port", "names nothing"]);
    check("x = \"{{ port.http }}\"", &["[template-name]"]);
    check("x = { text = \"{{ port.http }}\" }", &["[template-name]"]);
    sandbox.manifest("[session.a]\nresources = [\"port-range\"]\nfiles = { x = \"1\" }\n");
    sandbox.seedbed(&["validate"]).expect(65).says(&["lies in no worktree", "request a `git-worktree`"]);
}

/// Runs a program in a directory, and returns what it prints; `None`, with a notice, if it is not installed.
fn printed(sandbox: &Sandbox, directory: &Path, program: &str, args: &[&str]) -> Option<String> {
    if !installed(program) {
        return None;
    }
    let output = sandbox.program(program, directory).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// Returns whether Python has a module, with a notice if not.
fn has_module(sandbox: &Sandbox, module: &str) -> bool {
    if !installed("python3") {
        return false;
    }
    let mut python = sandbox.program("python3", &sandbox.top);
    let found = python.args(["-c", &format!("import {module}")]).output().unwrap().status.success();
    if !found {
        not_tested(&format!("python3 with {module}"));
    }
    found
}

#[test]
fn programs_read_the_files_of_the_example() {
    let sandbox = Sandbox::new();
    let example = fs::read_to_string(repository("examples/files.toml")).unwrap();
    let ports = format!("[defaults.port-range]\nbase-port = {}\nblock-count = 8", sandbox.base_port);
    sandbox.write("examples/files.toml", &example.replacen("[defaults.port-range]", &ports, 1));
    let file = ["-f", "examples/files.toml"];
    sandbox.ok(&[&file[..], &["apply"]].concat());
    let status = sandbox.ok(&[&file[..], &["status", "--json"]].concat()).json();
    let web = sessions(&status).find(|session| session["session"] == "web").unwrap();
    let directory = sandbox.repository.join(web["workingDirectory"].as_str().unwrap());
    let env = sandbox.ok(&[&file[..], &["env", "web", "--json"]].concat()).json();
    let port = |name: &str| env["environment"][name].as_str().unwrap().to_owned();
    let (http, db) = (port("AGENT_PORT_HTTP"), port("AGENT_PORT_DB"));
    let url = format!("postgres://localhost:{db}/app");
    let print = "console.log([process.env.PORT, process.env.DATABASE_URL, process.env.NAME].join(' '))";
    let expected = format!("{http} {url} files/web");
    if let Some(text) = printed(&sandbox, &directory, "node", &["--env-file=.env.local", "-e", print]) {
        assert_eq!(text, expected);
    }
    if has_module(&sandbox, "dotenv") {
        let script = "import dotenv; v = dotenv.dotenv_values('.env.local'); print(v['PORT'], v['DATABASE_URL'], v['NAME'])";
        assert_eq!(printed(&sandbox, &directory, "python3", &["-c", script]), Some(expected));
    }
    if has_module(&sandbox, "yaml") {
        let script =
            "import yaml; print(yaml.safe_load(open('compose.override.yaml'))['services']['db']['ports'][0])";
        let port = printed(&sandbox, &directory, "python3", &["-c", script]);
        assert_eq!(port, Some(format!("127.0.0.1:{db}:5432")));
    }
    if installed("direnv") {
        printed(&sandbox, &directory, "direnv", &["allow", "."]);
        let text = printed(&sandbox, &directory, "direnv", &["exec", ".", "sh", "-c", "echo $PORT $SESSION"]);
        assert_eq!(text.unwrap(), format!("{http} web"));
    }
    let compose = installed("docker")
        && sandbox
            .program("docker", &directory)
            .args(["compose", "version"])
            .output()
            .unwrap()
            .status
            .success();
    if compose {
        let args = ["compose", "-f", "compose.override.yaml", "config", "--no-interpolate", "--quiet"];
        printed(&sandbox, &directory, "docker", &args);
    } else {
        not_tested("docker compose");
    }
    let settings: Value = serde_json::from_str(&read(&directory, ".claude/settings.local.json")).unwrap();
    assert_eq!(settings["env"]["PORT"], http);
    assert_eq!(git_status(&sandbox, &directory), "");
    sandbox.ok(&[&file[..], &["destroy"]].concat());
}

/// A file that a session has put in place of one of its written files is never overwritten.
#[test]
fn tracked_and_linked_paths_of_a_session_stay() {
    let tree = |text: &str| {
        format!(
            "[session.a]\nresources = [\"git-worktree\"]\nfiles = {{ x = \"{text}\", y = \"{text}\", \"z/z\" = \"{text}\" }}\n"
        )
    };
    let sandbox = with_tree(&tree("one"));
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    fs::write(directory.join("x"), "mine").unwrap();
    sandbox.git_in(&directory, &["add", "--force", "x"]);
    sandbox.git_in(&directory, &["commit", "--quiet", "--message", "mine"]);
    let outside = sandbox.top.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("z"), "not mine").unwrap();
    fs::remove_file(directory.join("y")).unwrap();
    std::os::unix::fs::symlink(outside.join("z"), directory.join("y")).unwrap();
    fs::remove_dir_all(directory.join("z")).unwrap();
    std::os::unix::fs::symlink(&outside, directory.join("z")).unwrap();
    sandbox.manifest(&tree("two"));
    let applied = sandbox.ok(&["apply"]);
    for line in ["`x` is tracked in the session", "`y` is no file in the session", "`z/z` is no file"] {
        assert!(applied.stderr.contains(line), "{line}: {}", applied.stderr);
    }
    assert_eq!(read(&directory, "x"), "mine");
    assert_eq!(fs::read_to_string(outside.join("z")).unwrap(), "not mine");
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    sandbox.ok(&["destroy", "--rescue"]);
}
