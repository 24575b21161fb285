//! Tests of swarms whose sessions have worktrees of several repositories.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::fixtures::repository;
use crate::sandbox::{Sandbox, assert_same};

/// Sessions in the workspace's own repository and in another one.
const TWO: &str = r#"
[repository.web]
root = "../web"
[session.api]
resources = [{ kind = "git-worktree", branch = "agents/one" }]
[session.web]
resources = [{ kind = "git-worktree", repository = "web", branch = "agents/one" }]
"#;

fn two() -> Sandbox {
    let sandbox = Sandbox::in_memory();
    sandbox.other_repository("web");
    sandbox.manifest(TWO);
    sandbox
}

#[test]
fn example_of_several_repositories_is_applied_and_destroyed() {
    let sandbox = Sandbox::in_memory();
    let web = sandbox.other_repository("web");
    let text = fs::read_to_string(repository("examples/several-repositories.toml")).unwrap();
    let ports = format!("[defaults.port-range]\nbase-port = {}", sandbox.base_port);
    sandbox.write("examples/several.toml", &text.replacen("[defaults.port-range]", &ports, 1));
    sandbox.commit("example");
    let before = sandbox.inventory();
    let file = ["-f", "examples/several.toml"];
    sandbox.ok(&[&file[..], &["apply"]].concat());
    let status = sandbox.ok(&[&file[..], &["status", "--json"]].concat()).json();
    let directory = |name: &str| {
        let found = status["sessions"].as_array().unwrap().iter().find(|found| found["session"] == name);
        sandbox.repository.join(found.unwrap()["workingDirectory"].as_str().unwrap())
    };
    for (name, of) in [("api", &sandbox.repository), ("web", &web)] {
        let common = sandbox.git_in(&directory(name), &["rev-parse", "--git-common-dir"]);
        assert_eq!(Path::new(&common), of.join(".git"));
        let (head, main) = (&["rev-parse", "HEAD"], &["rev-parse", "main"]);
        assert_eq!(sandbox.git_in(&directory(name), head), sandbox.git_in(of, main));
        sandbox.assert_clean(&directory(name));
    }
    // The web client is started with the port of the API, and writes what it got from there.
    let started = sandbox.ok(&[&file[..], &["start"]].concat());
    assert!(started.stdout.contains("web"), "{started:?}");
    sandbox.ok(&[&file[..], &["destroy", "--discard", "--yes"]].concat());
    assert_same(&before, &sandbox.inventory());
}

/// A server of each repository, of which the second one gets what it serves from the first, by its port.
#[test]
fn servers_of_two_repositories_reach_each_other_by_their_ports() {
    let sandbox = two();
    // The API serves one request. The web client asks for the file until the API serves it.
    let serve = "import http.server, os; \
                 http.server.HTTPServer(('127.0.0.1', int(os.environ['AGENT_PORT_HTTP'])), \
                 http.server.SimpleHTTPRequestHandler).handle_request()";
    let client = "import os, time, urllib.request\n\
                  while True:\n  \
                  try: print(urllib.request.urlopen(os.environ['API'] + '/README.md').read().decode()); break\n  \
                  except OSError: time.sleep(0.05)\n";
    sandbox.write("serve.py", serve);
    fs::write(sandbox.top.join("web/client.py"), client).unwrap();
    sandbox.commit("server");
    sandbox.git_in(&sandbox.top.join("web"), &["add", "."]);
    sandbox.git_in(&sandbox.top.join("web"), &["commit", "--quiet", "--message", "client"]);
    let port = "{ kind = \"port-range\", names = [\"http\"] }";
    sandbox.manifest(&format!(
        "[repository.web]\nroot = \"../web\"\n\
         [session.api]\nresources = [\"git-worktree\", {port}]\ncommand = [\"python3\", \"serve.py\"]\n\
         [session.web]\nresources = [{{ kind = \"git-worktree\", repository = \"web\" }}, {port}]\n\
         env = {{ API = \"http://127.0.0.1:{{{{ sessions.api.port.http }}}}\" }}\n\
         command = [\"python3\", \"client.py\"]\n"
    ));
    sandbox.ok(&["apply"]);
    let readme = fs::read_to_string(sandbox.directory_of("api").join("README.md")).unwrap();
    let started = sandbox.ok(&["start", "--timeout", "60s"]).stdout;
    assert!(started.contains(&format!("web: {}", readme.lines().next().unwrap())), "{started}");
    sandbox.ok(&["destroy"]);
}

#[test]
fn plan_has_the_same_bytes_in_every_set_of_clones() {
    let sandbox = two();
    let set = sandbox.top.join("set");
    fs::create_dir(&set).unwrap();
    let copied =
        Command::new("cp").arg("-a").args([&sandbox.repository, &sandbox.top.join("web"), &set]).status();
    assert!(copied.unwrap().success());
    let plan = sandbox.ok(&["plan", "--json"]).stdout;
    assert_eq!(sandbox.seedbed_in(&set.join("repository"), &["plan", "--json"]).expect(0).stdout, plan);
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let expected = serde_json::json!([{ "name": "web", "root": "../web", "commonDirectory": "../web/.git" }]);
    assert_eq!(plan["repositories"], expected);
}

#[test]
#[ignore = "`every_case` runs it"]
fn manifest_with_a_wrong_repository_is_refused_at_its_place_in_every_case() {
    let sandbox = two();
    fs::create_dir(sandbox.top.join("empty")).unwrap();
    let check = |from: &str, to: &str, parts: &[&str]| {
        sandbox.manifest(&TWO.replace(from, to));
        for command in ["validate", "plan", "apply"] {
            sandbox.unchanged(|| sandbox.seedbed(&[command]).expect(65).says(parts));
        }
    };
    let root = "root = \"../web\"";
    check(root, "root = \"../wbe\"", &["/wbe does not exist", "root = \"../wbe\""]);
    check(root, "root = \"/web\"", &["the root of the repository `web` is absolute"]);
    check(root, "root = \"../empty\"", &["is not in a git repository"]);
    check(root, "root = \"app\"", &["is a directory in the repository"]);
    check(
        "repository = \"web\"",
        "repository = \"wbe\"",
        &["declares no repository `wbe`", "did you mean `web`?"],
    );
    check("[repository.web]", "[repository.web]\nroots = 1", &["roots"]);
    sandbox.manifest(TWO);
    sandbox.ok(&["validate"]);
}

#[test]
fn repository_under_two_names_is_one() {
    let sandbox = two();
    std::os::unix::fs::symlink("web", sandbox.top.join("link")).unwrap();
    let again = "[repository.again]\nroot = \"../link\"\n[session.again]\nresources = [{ kind = \"git-worktree\", \
                 repository = \"again\", branch = \"agents/one\" }]\n";
    sandbox.manifest(&format!("{TWO}{again}"));
    sandbox.seedbed(&["plan"]).expect(65).says(&["branch `agents/one`", "meets `agents/one`"]);
    sandbox.manifest(&format!("{TWO}{}", again.replace("agents/one", "agents/two")));
    let plan = sandbox.ok(&["plan"]).stdout;
    assert!(plan.contains("`again` and `web` are one repository"), "{plan}");
    assert!(plan.contains("repository again: ../web") && plan.contains("repository web: ../web"), "{plan}");
}

#[test]
fn saved_plan_is_applied_in_other_repositories_only_with_consent() {
    let sandbox = two();
    let path = sandbox.top.join("plan.json");
    let file = path.to_str().unwrap();
    sandbox.ok(&["plan", "-o", file]);
    sandbox.unchanged(|| sandbox.seedbed(&["apply", file]).expect(69).says(&["web (../web)", "--yes"]));
    // A plan for another repository, with the right digest, is a plan for another manifest.
    sandbox.other_repository("docs");
    sandbox.manifest(&TWO.replace("../web", "../docs"));
    sandbox.ok(&["plan", "-o", file]);
    sandbox.manifest(TWO);
    let other = ["web` at ../docs", "does not declare there"];
    sandbox.unchanged(|| sandbox.seedbed(&["apply", file, "--yes"]).expect(65).says(&other));
    let edited = fs::read_to_string(file).unwrap().replace("../docs", "../web");
    fs::write(&path, edited).unwrap();
    sandbox.unchanged(|| sandbox.seedbed(&["apply", file, "--yes"]).expect(65).says(&["was edited"]));
    sandbox.ok(&["plan", "-o", file]);
    sandbox.ok(&["apply", file, "--yes"]);
    sandbox.ok(&["destroy"]);
}

#[test]
fn failing_setup_in_the_third_repository_rolls_all_back() {
    let sandbox = two();
    sandbox.other_repository("docs");
    sandbox.manifest(&format!(
        "{TWO}[repository.docs]\nroot = \"../docs\"\n[session.writer]\nresources = [{{ kind = \"git-worktree\", \
         repository = \"docs\" }}]\nsetup = [\"exit 3\"]\n"
    ));
    sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1).says(&["writer"]));
}

#[test]
fn unsaved_work_in_another_repository_is_rescued_there() {
    let sandbox = two();
    let web = sandbox.top.join("web");
    sandbox.ok(&["apply"]);
    fs::write(sandbox.directory_of("web").join("new.txt"), "work\n").unwrap();
    sandbox.unchanged(|| sandbox.seedbed(&["destroy"]).expect(69).says(&["1 untracked"]));
    let printed = sandbox.ok(&["destroy", "--rescue"]).stdout;
    assert_eq!(sandbox.git(&["for-each-ref", "refs/seedbed"]), "");
    assert!(sandbox.git_in(&web, &["for-each-ref", "refs/seedbed"]).contains("shop"));
    assert!(sandbox.ok(&["rescue", "list"]).stdout.contains("shop/web"));
    sandbox.ok(&["apply"]);
    let name = printed.trim_end().strip_prefix("seedbed rescue restore ").unwrap();
    sandbox.ok(&["rescue", "restore", name, "--into", "web"]);
    assert_eq!(fs::read_to_string(sandbox.directory_of("web").join("new.txt")).unwrap(), "work\n");
    sandbox.ok(&["rescue", "drop", name, "--yes"]);
    assert_eq!(sandbox.git_in(&web, &["for-each-ref", "refs/seedbed"]), "");
}

#[test]
fn commits_in_each_repository_are_collected_and_compared_with_its_base() {
    let sandbox = two();
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory_of("web");
    fs::write(directory.join("app/main.txt"), "changed\n").unwrap();
    sandbox.git_in(&directory, &["commit", "--quiet", "--all", "--message=changed"]);
    let collected = sandbox.ok(&["collect", "--format", "json"]).json();
    let of = |name: &str| {
        let found = collected["worktrees"].as_array().unwrap().iter().find(|found| found["session"] == name);
        found.unwrap()["work"]["commits"].as_array().unwrap().len()
    };
    assert_eq!((of("api"), of("web")), (0, 1));
    let web = sandbox.top.join("web");
    let merge = format!("git -C {} merge --no-ff agents/one", web.display());
    assert!(collected["mergeCommands"].as_array().unwrap().contains(&Value::from(merge)), "{collected}");
    let status = sandbox.ok(&["status", "--json"]).json();
    let web = status["sessions"].as_array().unwrap().iter().find(|found| found["session"] == "web");
    assert_eq!(web.unwrap()["worktree"]["progress"]["ahead"], 1, "{status}");
}

#[test]
fn remedy_for_a_squashed_branch_names_its_repository() {
    let sandbox = two();
    sandbox.ok(&["apply"]);
    for session in ["api", "web"] {
        let directory = sandbox.directory_of(session);
        fs::write(directory.join("app/main.txt"), "changed\n").unwrap();
        sandbox.git_in(&directory, &["commit", "--quiet", "--all", "--message=changed"]);
    }
    sandbox.ok(&["destroy"]);
    let web = sandbox.top.join("web");
    sandbox.git_in(&web, &["merge", "--quiet", "--squash", "agents/one"]);
    sandbox.git_in(&web, &["commit", "--quiet", "--message=squashed"]);

    let delete = format!("git -C {} branch -D agents/one", web.display());
    let refused =
        sandbox.seedbed(&["plan"]).expect(65).stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(refused.replace("│ ", "").contains(&delete), "{refused}");
    // The branch of the workspace's own repository has not landed, and stays.
    sandbox.git(&delete.split(' ').skip(1).collect::<Vec<_>>());
    sandbox.ok(&["apply"]);
    assert_eq!(sandbox.git_in(&sandbox.directory_of("api"), &["log", "-1", "--format=%s"]), "changed");
}

#[test]
fn repository_whose_root_changes_gets_a_worktree_of_the_new_one() {
    let sandbox = two();
    let docs = sandbox.other_repository("docs");
    sandbox.ok(&["apply"]);
    sandbox.manifest(&TWO.replace("../web", "../docs"));
    let plan = sandbox.ok(&["plan"]).stdout;
    assert!(plan.contains("git-worktree is of another repository now"), "{plan}");
    sandbox.ok(&["apply", "--yes"]);
    let head = sandbox.git_in(&sandbox.directory_of("web"), &["rev-parse", "HEAD"]);
    assert_eq!(head, sandbox.git_in(&docs, &["rev-parse", "main"]));
    assert_eq!(sandbox.git_in(&sandbox.top.join("web"), &["branch", "--list", "agents/*"]), "");
    sandbox.ok(&["destroy"]);
}
