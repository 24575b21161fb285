//! Tests that a release is the exact reverse of the provisioning.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use seedbed::provider::{self, Registry};

use crate::fake_kind::{Fake, Step};
use crate::library_sandbox::Sandbox;

/// Steps that provisioned or released, in order: `KIND of SESSION`.
type Order = Arc<Mutex<Vec<String>>>;

const MANIFEST: &str = r#"version = 1
swarm = "s"
[session.a]
resources = ["claim", "first", "second"]
[session.a.child.x]
count = 2
[session.a.child.x.child.y]
[session.b]
resources = ["first", "claim"]
[session.b.child.z]
[session.c]
resources = ["claim"]
"#;

/// Returns kinds that record their steps; releasing `stuck` fails while `fails` is `true`.
fn registry(order: &Order, stuck: &'static str, fails: &Arc<AtomicBool>) -> Registry {
    let mut registry = Registry::built_in();
    for kind in ["claim", "first", "second"] {
        let (order, fails) = (Arc::clone(order), Arc::clone(fails));
        let fake = Fake::new(kind, move |step, task| {
            let what = format!("{kind} of {}", task.session);
            if step == Step::Release && what == stuck && fails.load(Ordering::Relaxed) {
                return Err(provider::Error::Refused("stuck".to_owned()));
            }
            order.lock().unwrap().push(what);
            Ok(())
        });
        registry.register(Box::new(if kind == "claim" { fake.claimed() } else { fake })).unwrap();
    }
    registry
}

fn take(order: &Order) -> Vec<String> {
    std::mem::take(&mut *order.lock().unwrap())
}

#[test]
fn a_release_is_the_exact_reverse_of_provisioning() {
    let mut sandbox = Sandbox::new();
    sandbox.host.jobs = NonZeroUsize::MIN;
    let order = Order::default();
    let registry = registry(&order, "", &Arc::default());
    sandbox.apply_with(&registry, MANIFEST).unwrap();
    let provisioned = take(&order);
    assert_eq!(provisioned.len(), 20, "{provisioned:?}");
    sandbox.destroy_with(&registry, "s", false).unwrap();
    let mut released = take(&order);
    released.reverse();
    assert_eq!(released, provisioned);
}

#[test]
fn claim_is_released_after_everything_provisioned_after_it() {
    for jobs in [1, 4] {
        let mut sandbox = Sandbox::new();
        sandbox.host.jobs = NonZeroUsize::new(jobs).unwrap();
        let before = sandbox.trace();
        let (order, fails) = (Order::default(), Arc::new(AtomicBool::new(true)));
        let registry = registry(&order, "first of s/a/x-1", &fails);
        sandbox.apply_with(&registry, MANIFEST).unwrap();
        take(&order);
        let error = sandbox.destroy_with(&registry, "s", false).unwrap_err();
        assert!(error.contains("stuck"), "{error}");
        let released = take(&order);
        let is_claim = |what: &&String| what.starts_with("claim");
        let first_claim = released.iter().position(|what| what.starts_with("claim")).unwrap();
        assert!(released[first_claim..].iter().all(|what| is_claim(&what)), "{released:?}");
        let claims: Vec<_> =
            released.iter().filter(is_claim).map(|what| &what["claim of s/".len()..]).collect();
        assert_eq!(claims, ["a/x-1/y", "a/x-0/y", "b/z", "a/x-0", "c", "b"], "those above what is left stay");
        fails.store(false, Ordering::Relaxed);
        sandbox.locked(&registry, "s", |context| {
            seedbed::apply::recover(context, seedbed::apply::Options::default()).unwrap();
        });
        assert_eq!(sandbox.trace(), before);
    }
}
