//! Manifests of a sequence.

use std::fmt::Write as _;
use std::fs;
use std::sync::LazyLock;

use rustix::mount::{UnmountFlags, mount_bind, unmount};

use super::random::Random;
use crate::cli::shells::installed;
use crate::faults::sandbox;

/// Features that this host has.
#[derive(Clone, Copy)]
pub(super) struct Features {
    pub(super) overlays: bool,
    /// `true` if the external kind of the examples can be run.
    pub(super) databases: bool,
    /// `true` if this user may mount.
    pub(super) mounts: bool,
}

/// Features of this host. Missing ones are reported once.
pub(super) static FEATURES: LazyLock<Features> = LazyLock::new(|| {
    let sandbox = sandbox("");
    sandbox.other_repository("web");
    sandbox.manifest(&Shape { mounted: 1, ..Shape::DEFAULT }.manifest());
    let (one, other) = (sandbox.top.join("one"), sandbox.top.join("other"));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&other).unwrap();
    let mounts = mount_bind(&one, &other).is_ok();
    let _ = unmount(&other, UnmountFlags::empty());
    if !mounts {
        eprintln!("NOT TESTED: this user may not mount inside of sessions");
    }
    Features { overlays: sandbox.can_mount(), databases: installed("python3"), mounts }
});

/// Options that bring files of the workspace.
const BRINGS: [&str; 5] = [
    "link = [\"cache\"]",
    "link = [\"cache\"], copy = [\".env*\"]",
    "copy = [\".env*\", \"cache\"]",
    "copy = [\".env\"]",
    "copy = []",
];

/// Names of ports.
const NAMES: [&str; 3] = ["", ", names = [\"http\"]", ", names = [\"http\", \"db\"]"];

/// Options of the worktree in the other repository.
const OF_WEB: [&str; 4] =
    ["", ", checkout = \"git\"", ", target-path = \"app\"", ", branch = \"agents/{{ session.name }}\""];

/// Options of a directory.
const DIRECTORIES: [Option<&str>; 4] =
    [None, Some(""), Some(", keep = false"), Some(", copy-from = \"app\"")];

/// The requests of a manifest.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the manifest")]
pub(super) struct Shape {
    coders: u64,
    mounted: u64,
    database: bool,
    base: &'static str,
    branch: bool,
    refuse: bool,
    target: bool,
    checkout: &'static str,
    block: u64,
    /// Options of coders that bring files of the workspace.
    brings: &'static str,
    hooks: bool,
    /// Names of ports of the lead.
    names: &'static str,
    slots: u64,
    /// `true` if the lead has a second range of ports.
    debug: bool,
    /// Number of sessions with a worktree of the workspace's repository and one of the other repository.
    pairs: u64,
    /// Options of their worktree in the other repository.
    of_web: &'static str,
    /// `true` if such a session has a worktree at another commit too.
    third: bool,
    /// Root of the other repository.
    pub(super) web: &'static str,
    /// Options of the lead's directory; `None` if it has none.
    directory: Option<&'static str>,
    /// Number of items that each coder has of a pool: none, one, or two of a pool that has some of the same items.
    items: u64,
    /// `true` if the `setup` of coders fails.
    pub(super) fails: bool,
}

impl Shape {
    const DEFAULT: Self = Self {
        coders: 0,
        mounted: 0,
        database: false,
        base: "main",
        branch: false,
        refuse: false,
        target: false,
        checkout: "auto",
        block: 4,
        brings: BRINGS[0],
        hooks: false,
        names: NAMES[0],
        slots: 4,
        debug: false,
        pairs: 0,
        of_web: OF_WEB[0],
        third: false,
        web: "../web",
        directory: None,
        items: 0,
        fails: false,
    };

    pub(super) fn new(random: &mut Random) -> Self {
        let features = *FEATURES;
        Self {
            coders: random.below(3),
            mounted: if features.overlays { random.below(2) } else { 0 },
            database: features.databases && random.percent(30),
            branch: random.percent(70),
            pairs: random.below(3),
            of_web: random.pick(&OF_WEB).unwrap(),
            ..Self::DEFAULT
        }
    }

    /// Grows, shrinks, or changes one option.
    pub(super) fn vary(&mut self, random: &mut Random) {
        let features = *FEATURES;
        match random.below(23) {
            0..=2 => self.coders = random.below(4),
            3 if features.overlays => self.mounted = random.below(3),
            4 if features.databases => self.database = !self.database,
            5 => self.base = random.pick(&["main", "old", "v1"]).unwrap(),
            6 => self.branch = !self.branch,
            7 => self.refuse = !self.refuse,
            8 => self.target = !self.target,
            9 => self.checkout = random.pick(&["auto", "git"]).unwrap(),
            10 | 11 => self.brings = random.pick(&BRINGS).unwrap(),
            12 => self.hooks = !self.hooks,
            13 => self.names = random.pick(&NAMES).unwrap(),
            14 => self.slots = 9 - self.slots,
            15 => self.debug = !self.debug,
            17 | 18 => self.pairs = random.below(3),
            19 => self.of_web = random.pick(&OF_WEB).unwrap(),
            20 => self.third = !self.third,
            21 | 22 => self.items = random.below(3),
            16 => self.directory = *random.pick(&DIRECTORIES).unwrap(),
            _ => self.block = 12 - self.block,
        }
        self.fails = random.percent(12);
    }

    /// Returns the requests without the other repository.
    pub(super) fn without_web(&self) -> Self {
        Self { pairs: 0, ..self.clone() }
    }

    /// Returns an argument of `--set` that changes the number of a session's replicas; `None` if there are none.
    pub(super) fn set(&self, random: &mut Random) -> Option<String> {
        let counts = [("coder", self.coders), ("mounted", self.mounted), ("pair", self.pairs)];
        let (name, _) =
            *random.pick(&counts.map(|count| (count.1 > 0).then_some(count))).unwrap().as_ref()?;
        Some(format!("--set=session.{name}.count={}", 1 + random.below(3)))
    }

    /// Returns the manifest, without its head.
    pub(super) fn manifest(&self) -> String {
        let Self { base, checkout, block, brings, names, slots, .. } = self;
        let mut options = format!("base-ref = \"{base}\"");
        if self.refuse {
            options += ", branch-exists = \"refuse\"";
        }
        let branch = if self.branch { ", branch = \"agents/{{ session.name }}\"" } else { "" };
        let target = if self.target { ", target-path = \"app\"" } else { "" };
        let database = if self.database { ", \"scratch-database\"" } else { "" };
        let debug =
            if self.debug { ", { kind = \"port-range\", name = \"debug\", block-size = 2 }" } else { "" };
        let directory =
            self.directory.map_or(String::new(), |options| format!(", {{ kind = \"directory\"{options} }}"));
        let hooks = if self.hooks { ", git-hooks = true, relative = true" } else { "" };
        // More than the coders and what is spawned beside them can have.
        let pool = match self.items {
            0 => String::new(),
            count => {
                let items: Vec<_> = (0..30).map(|item| format!("\"{}\"", count * 15 + item)).collect();
                format!(
                    ", {{ kind = \"pool\", name = \"gpu\", items = [{}], count = {count} }}",
                    items.join(", ")
                )
            }
        };
        let setup = if self.fails { "false" } else { "echo made > made.log" };
        let mut text = format!("[repository.web]\nroot = \"{}\"\n", self.web);
        if self.database {
            text += "[provider.scratch-database]\ncommand = [\"./tools/scratch-database\"]\n";
        }
        let _ = write!(
            text,
            "[session.lead]\nresources = [{{ kind = \"git-worktree\", {options}, copy = [\".env\"] }}, {{ kind = \"port-range\", block-size = 16, block-count = 32, slots = {slots}{names} }}{debug}{directory}{database}]\ncommand = [\"touch\", \"started.log\"]\n"
        );
        if self.coders > 0 {
            let _ = write!(
                text,
                "[session.coder]\ncount = {}\nresources = [{{ kind = \"git-worktree\", checkout = \"{checkout}\", {brings}{hooks}, {options}{branch}{target} }}, {{ kind = \"port-range\", block-size = {block} }}{pool}]\nsetup = [\"{setup}\"]\nteardown = [\"true\"]\n",
                self.coders
            );
        }
        if self.mounted > 0 {
            let _ = write!(
                text,
                "[session.mounted]\ncount = {}\nresources = [{{ kind = \"git-worktree\", checkout = \"overlay\", {options}{branch} }}]\n",
                self.mounted
            );
        }
        if self.pairs > 0 {
            let third = if self.third {
                ", { kind = \"git-worktree\", name = \"old\", base-ref = \"old\" }"
            } else {
                ""
            };
            let _ = write!(
                text,
                "[session.pair]\ncount = {}\nresources = [{{ kind = \"git-worktree\", name = \"api\", {options}{branch} }}, {{ kind = \"git-worktree\", name = \"web\", repository = \"web\", base-ref = \"main\"{} }}{third}, \"port-range\"]\nsetup = [\"{setup}\"]\n",
                self.pairs, self.of_web
            );
        }
        text
    }
}
