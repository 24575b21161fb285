//! Tests of pools: no two sessions of a host have one item.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::fixtures::repository;
use crate::sandbox::{Sandbox, assert_same, sessions};

/// Returns the items of each session, its own and those for its children.
fn items(plan: &Value) -> Vec<(String, Value, Value)> {
    let of = |session: &Value| {
        let pool = &session["allocations"].as_array().unwrap().iter().find(|one| one["kind"] == "pool")?["allocation"];
        Some((
            session["path"].as_str().unwrap().to_owned(),
            pool["items"].clone(),
            pool["forChildren"].clone(),
        ))
    };
    sessions(plan).filter_map(of).collect()
}

fn own(plan: &Value) -> BTreeSet<String> {
    let items = items(plan).into_iter().flat_map(|(_, items, _)| items.as_array().unwrap().clone());
    items.map(|item| item.as_str().unwrap().to_owned()).collect()
}

const CODERS: &str = "[defaults.pool]\nfile = \"devices.txt\"\n[session.coder]\ncount = 2\n\
                      resources = [{ kind = \"pool\", name = \"gpu\" }]\n";

#[test]
fn clones_never_share_an_item() {
    let sandbox = Sandbox::new();
    sandbox.manifest(CODERS);
    sandbox.write("devices.txt", "# of this machine\n\ngpu0\n gpu1 \ngpu2\ngpu3\ngpu4\n");
    sandbox.commit("devices");
    let (second, third) = (sandbox.clone_to("second"), sandbox.clone_to("third"));
    let first = own(&sandbox.plan());
    assert_eq!(
        own(&sandbox.plan_in(&second)),
        first,
        "the same plan everywhere, as long as nothing is leased"
    );
    sandbox.ok(&["plan", "--output", "saved.json"]);
    sandbox.seedbed_in(&second, &["apply"]).expect(0);
    sandbox
        .seedbed(&["apply", "saved.json"])
        .expect(69)
        .says(&["of the pool `gpu` is not free any more: leased to shop/coder"]);
    sandbox.ok(&["apply"]);
    let (ours, theirs) = (own(&sandbox.plan()), own(&sandbox.plan_in(&second)));
    assert_eq!((ours.len(), theirs.len(), ours.is_disjoint(&theirs)), (2, 2, true));
    // Too few are left; the line of the list is underlined.
    let refused = sandbox.seedbed_in(&third, &["plan"]).expect(65);
    refused.says(&[
        "needs 1 item of the pool `gpu`, and 0 of 5 are free",
        "file = \"devices.txt\"",
        "leased to shop/coder-0",
        "[no-free-item]",
    ]);
    // An item that is not in the list any more is replaced, and the other one kept.
    let kept = ours.last().unwrap();
    let free = ["gpu0", "gpu1", "gpu2", "gpu3", "gpu4"]
        .into_iter()
        .find(|item| !ours.contains(*item) && !theirs.contains(*item));
    let list = |items: &[&str]| sandbox.write("devices.txt", &items.join("\n"));
    list(&[kept, free.unwrap()]);
    let plan = sandbox.seedbed(&["plan"]).expect(0).stdout;
    assert!(plan.contains("gpu would be planned differently now"), "{plan}");
    sandbox.ok(&["apply", "--yes"]);
    assert_eq!(own(&sandbox.plan()), BTreeSet::from([kept.clone(), free.unwrap().to_owned()]));
    // A lease that was lost is found and restored; one without a swarm is reaped.
    let registry = sandbox.state().join("leases");
    let lease = |mark: &str| {
        let names = fs::read_dir(&registry).unwrap().map(|entry| entry.unwrap().path());
        names
            .filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(mark)))
            .collect::<Vec<_>>()
    };
    fs::remove_file(&lease(&format!("\"{kept}\""))[0]).unwrap();
    let status = sandbox.seedbed(&["status"]).stdout;
    assert!(status.contains("the lease of `"), "{status}");
    sandbox.ok(&["status", "--repair"]);
    sandbox.seedbed(&["status"]).expect(0);
    fs::remove_dir_all(&second).unwrap();
    sandbox.ok(&["destroy", "shop", "--gone"]);
    let orphan = lease(&format!("\"{kept}\""));
    let text = fs::read_to_string(&orphan[0]).unwrap();
    sandbox.ok(&["destroy"]);
    assert_eq!(lease("gpu"), [""; 0].map(std::path::PathBuf::from));
    fs::write(&orphan[0], text).unwrap();
    sandbox.manifest("");
    let found = sandbox.ok(&["doctor"]).stdout;
    assert!(found.contains("of the pool `gpu` is leased to shop/coder"), "{found}");
    let reaped = sandbox.ok(&["doctor", "--reap", "--json"]).json();
    assert_eq!(reaped["reaped"]["leases"][0]["item"], json!(kept));
    assert_eq!(lease("gpu"), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn children_take_their_items_from_their_parent() {
    let sandbox = Sandbox::new();
    let manifest = |slots: &str, rest: &str| {
        sandbox.manifest(&format!(
            "[session.lead]\nenv = {{ MINE = \"{{{{ resources.gpu.item }}}}\", ALL = \"{{{{ pool['items'] | length }}}}\" }}\n\
             resources = [{{ kind = \"pool\", name = \"gpu\", items = [\"a\", \"b\", \"c\", \"d\", \"e\"]{slots} }}]\n{rest}"
        ));
    };
    let coders =
        "[session.lead.child.coder]\ncount = 2\nenv = { UP = \"{{ parent.resources.gpu.item }}\" }\n";
    manifest("", coders);
    sandbox.ok(&["apply"]);
    let plan = sandbox.plan();
    let found = items(&plan);
    let (_, lead, rest) = &found[0];
    assert_eq!(found[1].1[0], rest[0]);
    assert_eq!(found[2].1[0], rest[1]);
    assert_eq!(own(&plan).len(), 3);
    let env = |session: &str| sandbox.ok(&["env", session, "--json"]).json()["environment"].clone();
    let coder = env("lead/coder-1");
    assert_eq!(json!([coder["AGENT_POOL_GPU"]]), found[2].1);
    assert_eq!(json!([coder["UP"]]), *lead);
    assert_eq!(env("lead")["ALL"], "1");
    let explained = sandbox.ok(&["explain", "lead/coder-0"]).stdout;
    assert!(explained.contains("are a share of the items of lead"), "{explained}");
    // Without `slots`, a further child has an item of its own, and no active session is moved. A pool is used up.
    sandbox.ok(&["spawn", "helper", "--parent", "lead"]);
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    let four = own(&sandbox.plan());
    assert_eq!(four.len(), 4);
    sandbox.ok(&["spawn", "helper-2", "--parent", "lead"]);
    sandbox.unchanged(|| {
        sandbox.seedbed(&["spawn", "helper-3", "--parent", "lead"]).expect(65).says(&["0 of 5 are free"])
    });
    sandbox.ok(&["release", "helper"]);
    sandbox.ok(&["release", "helper-2"]);
    // Slots are kept for children to come; another number is another set of items.
    manifest(", slots = 3", coders);
    sandbox.ok(&["apply", "--yes"]);
    let helper = sandbox.ok(&["spawn", "helper", "--parent", "lead", "--json"]).json();
    let (_, _, rest) = items(&sandbox.plan())[0].clone();
    assert_eq!(helper["softConstraints"]["env"]["AGENT_POOL_GPU"], rest[2]);
    sandbox.unchanged(|| {
        sandbox
            .seedbed(&["spawn", "late", "--parent", "lead"])
            .expect(69)
            .says(&["raise the parent's `slots`"])
    });
    sandbox.ok(&["release", "helper"]);
    manifest(", slots = 1", coders);
    sandbox
        .unchanged(|| sandbox.seedbed(&["apply", "--yes"]).expect(65).says(&["too few are free", "[slots]"]));
    // Whatever is killed, the items are free again.
    manifest(", slots = 3", coders);
    sandbox.ok(&["destroy"]);
    let before = sandbox.inventory();
    for number in 1..=9 {
        let mut killed = sandbox.command(&["apply"]);
        killed.env("SEEDBED_FAILPOINT", format!("leases.guard#{number}=crash")).output().unwrap();
        sandbox.ok(&["recover"]);
        if number < 7 {
            assert_same(&before, &sandbox.inventory());
        }
        sandbox.ok(&["destroy"]);
    }
    assert_same(&before, &sandbox.inventory());
}

#[test]
fn lists_that_are_none_are_diagnostics() {
    let sandbox = Sandbox::new();
    sandbox.write("empty", "# nothing\n");
    sandbox.write("twice", "x\ny\nx\n");
    sandbox.write("huge", &"x\n".repeat(600_000));
    symlink("/etc/passwd", sandbox.repository.join("passwd")).unwrap();
    symlink("/etc", sandbox.repository.join("etc")).unwrap();
    let check = |options: &str, expected: &str| {
        sandbox.manifest(&format!("[session.a]\nresources = [{{ kind = \"pool\"{options} }}]\n"));
        sandbox.seedbed(&["validate"]).expect(65).says(&[expected]);
    };
    check("", "the pool has no items");
    check(", items = [\"a\"], file = \"empty\"", "not both");
    check(", items = [\"a\", \"b,c\", \" d\", \"a\"]", "`b,c` cannot be an item");
    check(", items = [\"a\", \"a\"]", "in the pool twice");
    check(", file = \"twice\"", "`x` is in the pool twice");
    check(", file = \"empty\"", "the pool has 0 items");
    check(", file = \"missing\"", "the workspace has no file `missing`");
    check(", file = \"huge\"", "`huge` is larger than 1024 KiB");
    check(", file = \"passwd\"", "`passwd` is a link");
    check(", file = \"etc/passwd\"", "lies behind one");
    check(", file = \"../x\"", "not a path inside the workspace");
    check(", file = \"/etc/passwd\"", "not a path inside the workspace");
    check(", items = [\"a\"], count = 2", "needs 2 items of the pool `pool`, and 1 of 1 is free");
    check(", items = [\"a\"], pool = \"/\"", "pool");
}

#[test]
fn the_example_is_applied() {
    let sandbox = Sandbox::new();
    sandbox.write("seedbed.toml", &fs::read_to_string(repository("examples/pool.toml")).unwrap());
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    let shown = sandbox.ok(&["exec", "eval-0", "--", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]).stdout;
    assert_eq!(shown.trim().len(), 1, "{shown}");
    sandbox.ok(&["destroy"]);
    assert_same(&before, &sandbox.inventory());
}
