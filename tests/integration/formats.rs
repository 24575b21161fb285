//! The formats of `plan`.

use crate::sandbox::Sandbox;

#[test]
fn json_is_a_format_and_excludes_the_others() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    let json = sandbox.ok(&["plan", "--json"]).stdout;
    assert_eq!(sandbox.ok(&["plan", "--format", "json"]).stdout, json);
    assert_eq!(sandbox.ok(&["plan", "--format", "json", "--json"]).stdout, json);
    let both = sandbox.seedbed(&["plan", "--format", "text", "--json"]).expect(64);
    assert!(both.json()["message"].as_str().unwrap().contains("either --json or --format"), "{both:?}");
}
