//! Tests of the objects of `fleet kubernetes`: the published schema, and the commands in them with a stand-in for kubectl.
//! No cluster is used.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Hosts, SESSIONS};
use crate::fixtures::repository;
use crate::sandbox::{Outcome, Sandbox, assert_same, bin, wait_until};

const FLEET: &str = "[fleet]\nshards = 2\nspares = 1\n[session.a]\ncount = 3\n";

/// Arguments with text that YAML, shells and Kubernetes could interpret.
const ARGUMENTS: [&str; 8] = [
    "/fleet dir/$(HOSTS)",
    "--image",
    "registry.example/seedbed:1 # \"'\\{{x}}",
    "--repository",
    "https://git.example/$(HOME)/$$x: y\u{1f600}.git",
    "--time",
    "8h",
    "--name=shop-2",
];

/// Returns the file of a fleet.
fn written(sandbox: &Sandbox, args: &[&str]) -> String {
    sandbox.ok(&[&["fleet", "kubernetes"], args].concat()).stdout
}

/// Returns the file's objects, read by the YAML of Python, and the folders of schemas; `None` without them.
fn objects(sandbox: &Sandbox, text: &str) -> Option<(Vec<Value>, Vec<PathBuf>)> {
    let folder = repository("target/kubernetes");
    let python = folder.join("bin/python");
    let Ok(schemas) = fs::read_dir(folder.join("schemas")) else {
        eprintln!("NOT TESTED: target/kubernetes is missing; .ci/setup creates it");
        return None;
    };
    let file = sandbox.top.join("fleet.yaml");
    fs::write(&file, text).unwrap();
    let script = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(open(sys.argv[1]))), sys.stdout)";
    let read = Outcome::of(Command::new(python).args(["-c", script]).arg(file).output().unwrap()).expect(0);
    let Value::Array(objects) = read.json() else { panic!("no objects") };
    Some((objects, schemas.map(|entry| entry.unwrap().path()).collect()))
}

/// Returns the key of an object's definition in the published schema.
fn definition(object: &Value) -> String {
    let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let group = match version {
        "v1" => "core.v1",
        "batch/v1" => "batch.v1",
        "rbac.authorization.k8s.io/v1" => "rbac.v1",
        other => panic!("{other}"),
    };
    format!("io.k8s.api.{group}.{kind}")
}

#[test]
fn objects_fit_the_published_schema() {
    let sandbox = Sandbox::new();
    sandbox.manifest(FLEET);
    let texts = [
        written(&sandbox, &["/fleet", "--image", "i", "--repository", "r", "--time", "60"]),
        written(&sandbox, &[&ARGUMENTS[..], &["--storage-class", "nfs.fast", "--pods", "1000"]].concat()),
    ];
    for text in texts {
        let Some((objects, schemas)) = objects(&sandbox, &text) else { return };
        assert_eq!(schemas.len(), 2, "the oldest version that has all fields, and a new one");
        for schema in &schemas {
            let mut schema: Value = serde_json::from_slice(&fs::read(schema).unwrap()).unwrap();
            schema.as_object_mut().unwrap().remove("$id");
            let errors = |object: &Value| {
                let mut schema = schema.clone();
                schema["$ref"] = json!(format!("#/$defs/{}", definition(object)));
                let validator = jsonschema::validator_for(&schema).unwrap();
                validator.iter_errors(object).map(|error| error.to_string()).collect::<Vec<_>>()
            };
            for object in &objects {
                assert_eq!(errors(object), Vec::<String>::new(), "{object:#}");
            }
            // The schema is strict.
            let mut job = objects.iter().find(|object| object["kind"] == "Job").unwrap().clone();
            job["spec"]["template"]["spec"]["containers"][0]["comand"] = json!([]);
            assert!(!errors(&job).is_empty());
        }
    }
}

#[test]
fn every_value_arrives_as_it_was_given() {
    let sandbox = Sandbox::new();
    sandbox.manifest(FLEET);
    let Some((objects, _)) = objects(&sandbox, &written(&sandbox, &ARGUMENTS)) else { return };
    let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let (job, coordinator) = (&of_kind("Job")["spec"], &of_kind("Pod")["spec"]);
    assert_eq!([&job["completions"], &job["parallelism"]], [3, 3], "shards and spares");
    assert_eq!(job["activeDeadlineSeconds"], 8 * 3600);
    let host = &job["template"]["spec"];
    assert_eq!(host["automountServiceAccountToken"], false);
    for pod in [host, coordinator] {
        let container = &pod["containers"][0];
        assert_eq!(container["image"], "registry.example/seedbed:1 # \"'\\{{x}}");
        assert_eq!(container["volumeMounts"][1]["mountPath"], "/fleet dir/$(HOSTS)");
        // Kubernetes replaces `$(NAME)` in commands, and `$$` by `$`.
        let clone = pod["initContainers"][0]["command"].as_array().unwrap();
        assert_eq!(clone[4], "https://git.example/$$(HOME)/$$$$x: y\u{1f600}.git");
    }
    let variables = coordinator["containers"][0]["env"].as_array().unwrap();
    let variable = |name: &str| &variables.iter().find(|one| one["name"] == name).unwrap()["value"];
    assert_eq!(variable("FLEET"), "/fleet dir/$$(HOSTS)");
    assert_eq!(variable("HOSTS"), "shop-2-0.shop-2,shop-2-1.shop-2,shop-2-2.shop-2");
}

#[test]
fn values_are_not_expanded_and_no_two_pods_have_one_index() {
    let sandbox = Sandbox::new();
    sandbox.manifest(FLEET);
    let text = written(&sandbox, &ARGUMENTS);
    let values = text.lines().filter(|line| line.contains("$(HOME)") || line.contains("$(HOSTS)"));
    let values: Vec<_> = values.filter(|line| !line.contains("mountPath")).collect();
    assert!(values.len() == 3 && values.iter().all(|line| line.contains("/$$(HO")), "{values:?}");
    assert!(text.contains("\n  podReplacementPolicy: \"Failed\"\n"), "{text}");
}

#[test]
fn arguments_that_fit_no_cluster_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\n");
    let check = |args: &[&str], said: &str| {
        let rest = ["--image", "i", "--repository", "r", "--time", "8h"];
        let outcome = sandbox.seedbed(&[&["fleet", "kubernetes"], args, &rest].concat());
        outcome.expect(64).says(&[said]);
    };
    check(&["/fleet"], "the manifest has no number of shards");
    for directory in ["fleet", "/", "/workspace/fleet", "/a/../b", "/a:b"] {
        check(&[directory, "--pods", "2"], "the volume cannot be mounted at");
    }
    let long = "a".repeat(51);
    for name in ["Shop", "shop_1", "1shop", "shop-", "", &long] {
        check(&["/fleet", "--pods", "2", "--name", name], "`--name` is no name for Kubernetes");
    }
    for quantity in ["0", "x", "1 Gi", "-1", "1Zi", "."] {
        check(&["/fleet", "--pods", "2", &format!("--memory={quantity}")], "a quantity is a number above 0");
    }
    check(&["/fleet", "--pods", "2", "--storage-class", "a/b"], "lower-case letters");
    check(&["/fleet", "--pods", "20000"], "the names of the hosts are too long");
    sandbox.write("seedbed.toml", "version = 1\nswarm = \"Shop\"\n[fleet]\nshards = 1\n[session.a]\n");
    check(&["/fleet"], "the name of the swarm is no name for Kubernetes");
}

#[test]
fn the_file_replaces_only_an_earlier_one() {
    let sandbox = Sandbox::new();
    sandbox.manifest(FLEET);
    let before = sandbox.inventory();
    let args = ["/fleet", "--image", "i", "--repository", "r", "--time", "8h", "-o", "../fleet.yaml"];
    let write = || sandbox.seedbed(&[&["fleet", "kubernetes"], &args[..]].concat());
    write().expect(0);
    write().expect(0).says(&["run `kubectl apply -f ../fleet.yaml`"]);
    assert_same(&before, &sandbox.inventory());
    fs::write(sandbox.top.join("fleet.yaml"), "notes\n").unwrap();
    write().expect(64).says(&["this command did not write it"]);
}

/// Returns the strings of the file that follow `value: ` or `- `, as Kubernetes passes them on.
fn strings(text: &str) -> Vec<String> {
    let scalar = |line: &str| {
        let scalar = line.trim_start().trim_start_matches("- ").trim_start_matches("value: ");
        serde_json::from_str::<String>(scalar).ok()
    };
    text.lines().filter_map(scalar).map(|text| text.replace("$$", "$")).collect()
}

/// Writes a program `kubectl` that finds a running pod by the labels of its Job, and runs commands in it. A file `lost-K`
/// stands for a pod that does not exist.
fn stand_in(hosts: &Hosts) -> PathBuf {
    let (top, folder) = (hosts.sandbox.top.display(), hosts.sandbox.top.join("kubectl"));
    fs::create_dir(&folder).unwrap();
    let script = format!(
        "#!/bin/sh\nset -eu\ncase \"$1 $2 $3 $4\" in\n\
         'get pod --output=name --field-selector=status.phase=Running')\n\
         index=${{5#--selector=batch.kubernetes.io/job-name=shop,batch.kubernetes.io/job-completion-index=}}\n\
         test -e {top}/lost-$index || echo pod/shop-$index-x7z2k;;\n\
         'exec pod/shop-'*'-x7z2k --container=host --')\n\
         host=${{2#pod/}}; host=${{host%-*}}.shop; shift 4\n\
         SEEDBED_STATE_DIR={top}/$host/state PATH={}:$PATH exec \"$@\";;\n\
         *) echo \"unknown: $*\" >&2; exit 1;;\nesac\n",
        bin().display()
    );
    fs::write(folder.join("kubectl"), script).unwrap();
    fs::set_permissions(folder.join("kubectl"), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn the_launcher_of_the_file_reaches_pods_by_their_index() {
    let names = ["shop-0.shop", "shop-1.shop", "shop-2.shop"];
    let hosts = Hosts::with_names(&names, &format!("[fleet]\nshards = 3\n{SESSIONS}"));
    let text = written(&hosts.sandbox, &["/fleet", "--image", "i", "--repository", "r", "--time", "8h"]);
    let strings = strings(&text);
    assert!(strings.contains(&names.join(",")), "{strings:?}");
    let launcher = strings.iter().find(|text| text.contains("{command}")).unwrap();
    let path = format!("{}:{}", stand_in(&hosts).display(), std::env::var("PATH").unwrap());
    let run = |mut command: Command| Outcome::of(command.env("PATH", &path).output().unwrap());
    let before = hosts.inventories();
    run(hosts.first_command(launcher, &[])).expect(0).says(&["12 sessions on 3 hosts"]);
    run(hosts.fleet_command("status", &[])).expect(0);
    fs::write(hosts.sandbox.top.join("lost-1"), "").unwrap();
    let status = run(hosts.fleet_command("status", &[])).expect(30).stdout;
    let of = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(of("shop-1.shop").contains("not heard of") && of("shop-0.shop").contains("applied"), "{status}");
    fs::remove_file(hosts.sandbox.top.join("lost-1")).unwrap();
    run(hosts.fleet_command("destroy", &["--yes"])).expect(0);
    hosts.assert_as(&before);
}

#[test]
fn a_pod_idles_until_it_is_deleted_and_fails_without_the_programs() {
    let sandbox = Sandbox::new();
    sandbox.manifest(FLEET);
    let text = written(&sandbox, &["/fleet", "--image", "i", "--repository", "r", "--time", "8h"]);
    let idle = strings(&text).into_iter().find(|text| text.contains("trap")).unwrap();
    let pod = |path: &str| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &idle]).env("PATH", path).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    };
    let output = pod("/bin:/usr/bin").output().unwrap();
    assert_eq!(output.status.code(), Some(127), "the policy of the Job fails it for this code");
    let log = sandbox.top.join("log");
    let path = format!("{}:{}", bin().display(), std::env::var("PATH").unwrap());
    let mut pod = pod(&path).stdout(fs::File::create(&log).unwrap()).spawn().unwrap();
    wait_until("the programs print their versions", || {
        fs::read_to_string(&log).unwrap().contains("git version")
    });
    // Long enough for the trap.
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(pod.try_wait().unwrap().is_none());
    let pid = rustix::process::Pid::from_child(&pod);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(pod.wait().unwrap().code(), Some(0));
}
