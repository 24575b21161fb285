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
    /// Options of the lead's directory; `None` if it has none.
    directory: Option<&'static str>,
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
        directory: None,
        fails: false,
    };

    pub(super) fn new(random: &mut Random) -> Self {
        let features = *FEATURES;
        Self {
            coders: random.below(3),
            mounted: if features.overlays { random.below(2) } else { 0 },
            database: features.databases && random.percent(30),
            branch: random.percent(70),
            ..Self::DEFAULT
        }
    }

    /// Grows, shrinks, or changes one option.
    pub(super) fn vary(&mut self, random: &mut Random) {
        let features = *FEATURES;
        match random.below(17) {
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
            16 => self.directory = *random.pick(&DIRECTORIES).unwrap(),
            _ => self.block = 12 - self.block,
        }
        self.fails = random.percent(12);
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
        let hooks = if self.hooks { ", git-hooks = true" } else { "" };
        let setup = if self.fails { "false" } else { "echo made > made.log" };
        let mut text = String::new();
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
                "[session.coder]\ncount = {}\nresources = [{{ kind = \"git-worktree\", checkout = \"{checkout}\", {brings}{hooks}, {options}{branch}{target} }}, {{ kind = \"port-range\", block-size = {block} }}]\nsetup = [\"{setup}\"]\nteardown = [\"true\"]\n",
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
        text
    }
}
