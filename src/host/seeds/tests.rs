#![expect(clippy::disallowed_methods, reason = "tests look at the real thing")]

use std::fs;

use super::*;

struct Store {
    directory: tempfile::TempDir,
    host: Host,
}

impl Store {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(Vec::new(), directory.path().join("state"));
        let store = Self { directory, host };
        fs::create_dir_all(store.at("repository")).unwrap();
        store
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn lock(&self, key: &str) -> LockedSeed {
        let locked = LockedSeed::lock(&self.host, &self.at("repository"), key, &Cancel::default());
        locked.unwrap().unwrap()
    }

    /// Makes a seed of the worktree `one`.
    fn make(&self, key: &str) -> LockedSeed {
        let one = self.at("one");
        fs::create_dir_all(one.join("modules/bin")).unwrap();
        let script = format!("#!{}/modules/bin/python\n", one.display());
        fs::write(one.join("modules/bin/run"), script).unwrap();
        fs::write(one.join("modules/binary"), format!("\0{}", one.display())).unwrap();
        let locked = self.lock(key);
        let origin = Origin { path: "modules", command: vec!["make".to_owned()], worktree: &one };
        let from = Root::open(&one.join("modules")).unwrap();
        locked.make(&self.at("repository"), key, origin, &from, &Cancel::default()).unwrap();
        locked
    }
}

#[test]
fn seed_is_copied_with_the_paths_of_its_worktree() {
    let store = Store::new();
    assert!(store.lock("k").complete().unwrap().is_none());
    let locked = store.make("k");
    let seed = locked.complete().unwrap().unwrap();
    assert_eq!((seed.seed.files, &*seed.seed.relocated), (2, &[PathBuf::from("bin/run")][..]));
    let two = store.at("two");
    fs::create_dir_all(two.join("modules")).unwrap();
    let to = [Root::open(&two.join("modules")).unwrap()];
    seed.copy(&to, &[&two], i64::MAX, &Cancel::default()).unwrap();
    let script = fs::read_to_string(two.join("modules/bin/run")).unwrap();
    assert_eq!(script, format!("#!{}/modules/bin/python\n", two.display()));
    assert!(fs::read_to_string(two.join("modules/binary")).unwrap().ends_with("/one"));
    assert_eq!(all(&store.host), [seed.seed]);
}

#[test]
fn damaged_seed_is_none() {
    let damages: [fn(&Path); 5] = [
        |seed| fs::remove_file(seed.join("tree/bin/run")).unwrap(),
        |seed| fs::write(seed.join("tree/more"), "").unwrap(),
        |seed| fs::write(seed.join("tree/binary"), "short").unwrap(),
        |seed| fs::remove_dir_all(seed.join("tree")).unwrap(),
        |seed| fs::write(seed.join("seed.json"), "{").unwrap(),
    ];
    for damage in damages {
        let store = Store::new();
        let locked = store.make("k");
        let seed = locked.complete().unwrap().unwrap().seed;
        damage(&seed.directory(&store.host));
        assert!(locked.complete().unwrap().is_none());
        drop(locked);
        assert!(store.make("k").complete().unwrap().is_some(), "it is made again");
    }
}

#[test]
fn one_run_at_a_time_uses_a_seed() {
    let store = Store::new();
    let locked = store.make("k");
    let cancel = Cancel::default();
    let (host, repository) = (store.host.clone(), store.at("repository"));
    let waiting = cancel.clone();
    let other =
        std::thread::spawn(move || LockedSeed::lock(&host, &repository, "k", &waiting).unwrap().is_none());
    std::thread::sleep(LOCK_POLL * 2);
    assert!(!other.is_finished());
    cancel.request();
    assert!(other.join().unwrap(), "a cancelled run does not wait");
    drop(store.lock("another key"));
    drop(locked);
    drop(store.lock("k"));
}

#[test]
fn seeds_that_no_session_needs_are_reaped() {
    let store = Store::new();
    for key in ["used", "old", "locked", "damaged"] {
        drop(store.make(key));
    }
    drop(store.lock("never made"));
    let seeds = store.at("state/seeds");
    let path = |key: &str| seeds.join(name(&store.at("repository"), key));
    for key in ["old", "locked"] {
        let document = path(key).join("seed.json");
        let mut seed: Seed = serde_json::from_slice(&fs::read(&document).unwrap()).unwrap();
        seed.used = clock::rfc3339(clock::seconds() - UNUSED_MAX.as_secs());
        fs::write(document, serde_json::to_vec(&seed).unwrap()).unwrap();
    }
    fs::remove_file(path("damaged").join("seed.json")).unwrap();
    let locked = store.lock("locked");
    let keys = |seeds: Vec<Seed>| seeds.into_iter().map(|seed| seed.key).collect::<Vec<_>>();
    assert_eq!(keys(reap(&store.host).unwrap()), ["old"]);
    drop(locked);
    assert_eq!(keys(reap(&store.host).unwrap()), ["locked"]);
    let left = fs::read_dir(&seeds).unwrap().map(|entry| entry.unwrap().path()).collect::<BTreeSet<_>>();
    assert_eq!(left, [path("used"), path("used").with_extension("lock")].into());
    fs::remove_dir_all(store.at("repository")).unwrap();
    assert_eq!(keys(reap(&store.host).unwrap()), ["used"]);
    assert!(fs::read_dir(&seeds).unwrap().next().is_none());
}
