//! Mutation-based fuzzing of the readers of untrusted bytes, with the stable toolchain and `cargo test`.
//!
//! Each test whose name contains `fuzz` is a target. A plain `cargo test` gives it [`INPUTS`] inputs. With
//! `SEEDBED_FUZZ_SECONDS` it runs that long, from the seed `SEEDBED_FUZZ_SEED` (default: 0). A seed gives the same
//! inputs on every machine. The input that fails is printed; after an abort or a hang, `TMPDIR/seedbed-fuzz-TARGET`
//! names the inputs among which it is.
//!
//! Readers that are private have their targets in their own tests.
#![expect(clippy::disallowed_methods, reason = "reads the examples, the environment and the clock")]

mod targets;

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

/// Number of inputs in a plain `cargo test`.
const INPUTS: u64 = 100;

/// Limit of the processor time for one input. The slowest valid template needs a fifth of it in a debug build.
const INPUT_MAX: Duration = Duration::from_secs(5);

/// Number of inputs between two looks at the memory of the process, which take longer than most inputs.
const BATCH: u64 = 50;

/// Limit of the memory that the process gains during one batch of inputs, in KiB. All targets of a run share the
/// process, so this is several times the need of one.
const MEMORY_MAX: u64 = 1 << 20;

/// Numbers at which a length, a count or a number of a file format overflows.
const NUMBERS: [u64; 12] =
    [0, 1, 2, 7, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 53, u64::MAX];

/// Pseudo-random numbers by `SplitMix64`.
pub(crate) struct Random(u64);

impl Random {
    /// Returns the next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`, or 0 if `end` is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap_or_default()
    }

    /// Returns one of `from`, which is not empty.
    pub(crate) fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }

    /// Returns a number of mutations from 1: half of the inputs have one, a quarter two, and so on.
    fn mutations(&mut self) -> u32 {
        1 + self.next().trailing_zeros().min(8)
    }
}

/// Gives `target` mutated inputs, and checks that it accepts some of them: a target that accepts none tests only the
/// first lines of its reader. The target returns whether the reader accepted the input, and panics if a property does
/// not hold.
pub(crate) fn run(name: &str, mutate: impl Fn(&mut Random) -> Vec<u8>, target: impl Fn(&[u8]) -> bool) {
    let seconds = setting("SEEDBED_FUZZ_SECONDS");
    let seed = setting("SEEDBED_FUZZ_SEED").unwrap_or_default();
    let file = std::env::temp_dir().join(format!("seedbed-fuzz-{name}"));
    let (begun, mut slowest, mut largest) = (Instant::now(), Duration::ZERO, 0);
    let (mut inputs, mut accepted, mut before) = (0, 0, 0);
    while seconds.map_or(inputs < INPUTS, |seconds| begun.elapsed() < Duration::from_secs(seconds)) {
        let input = mutate(&mut Random(seed ^ (inputs << 20)));
        let shown = || format!("{name}, seed {seed}, input {inputs}: b\"{}\"", input.escape_ascii());
        if seconds.is_some() && inputs % BATCH == 0 {
            std::fs::write(&file, format!("seed {seed}, from input {inputs}\n")).unwrap();
            before = resident_after_reset();
        }
        let since = processor_time();
        let result = panic::catch_unwind(AssertUnwindSafe(|| target(&input)));
        let took = processor_time().saturating_sub(since);
        slowest = slowest.max(took);
        let Ok(is_accepted) = result else { panic!("{}", shown()) };
        assert!(took < INPUT_MAX, "took {took:?}: {}", shown());
        inputs += 1;
        accepted += u64::from(is_accepted);
        if seconds.is_some() && inputs % BATCH == 0 {
            let grown = status("VmHWM:").saturating_sub(before);
            largest = largest.max(grown);
            assert!(grown < MEMORY_MAX, "{name}, seed {seed}: the inputs up to {inputs} took {grown} KiB");
        }
    }
    if seconds.is_some() {
        std::fs::remove_file(&file).unwrap();
    }
    println!(
        "{name}: {inputs} inputs, {accepted} accepted; at most {slowest:?} for one, {largest} KiB for {BATCH}"
    );
    // A few inputs prove nothing: another corpus gives others.
    assert!(accepted > 0 || seconds.is_none(), "{name}: none of {inputs} inputs was accepted");
}

/// Returns the value of an environment variable that is a number; `None` if it is not set.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Returns the processor time of this thread. Wall-clock time would fail on a loaded machine.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// Resets the peak of the process's memory, and returns what the process uses now, in KiB (`proc_pid_clear_refs(5)`).
fn resident_after_reset() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    status("VmRSS:")
}

/// Returns a number of `/proc/self/status`.
fn status(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value =
        status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok());
    value.unwrap()
}

/// Mutates one of `corpus`: flips and overwrites bytes, puts in numbers, cuts, repeats, and adds `words` and pieces of
/// the rest of the corpus.
pub(crate) fn bytes(random: &mut Random, corpus: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let mut input = random.pick(corpus).clone();
    for _ in 0..random.mutations() {
        let at = random.below(input.len());
        let end = (at + 1 + random.below(32)).min(input.len());
        match random.below(10) {
            0 | 1 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            2 if !input.is_empty() => input[at] = random.next().to_le_bytes()[0],
            3 => drop(input.drain(at..end)),
            4 => {
                let piece = input[at..end].repeat(1 + random.below(16));
                input.splice(at..at, piece);
            }
            5 => {
                let other = random.pick(corpus);
                let from = random.below(other.len());
                let piece = &other[from..(from + random.below(200)).min(other.len())];
                input.splice(at..end, piece.iter().copied());
            }
            6 if random.below(4) == 0 => input.truncate(at),
            6 => {
                let number = random.pick(&NUMBERS).to_be_bytes();
                let width = 1 << random.below(4);
                input.splice(at..(at + width).min(input.len()), number[8 - width..].iter().copied());
            }
            _ if !words.is_empty() => {
                let word = random.pick(words).repeat(if random.below(16) == 0 { 200 } else { 1 });
                input.splice(at..if random.below(2) == 0 { at } else { end }, word.into_bytes());
            }
            _ => {}
        }
    }
    input
}

/// Mutates values of one of the JSON documents `corpus`: replaces, removes, repeats, wraps and renames them.
pub(crate) fn json(random: &mut Random, corpus: &[Value], words: &[&str]) -> Value {
    let mut document = random.pick(corpus).clone();
    for _ in 0..random.mutations() {
        let mut other = random.pick(corpus).clone();
        let (of_other, of_this) = (count(&other), count(&document));
        let other = nth(&mut other, &mut random.below(of_other)).map(|value| value.clone());
        let Some(value) = nth(&mut document, &mut random.below(of_this)) else { continue };
        match random.below(12) {
            0 => *value = Value::Null,
            1 => *value = (*random.pick(&NUMBERS)).into(),
            2 => *value = other.unwrap_or_default(),
            3 => *value = serde_json::json!([value.clone(), value.clone()]),
            4 => *value = serde_json::json!({ *random.pick(words): value.clone() }),
            _ => change(random, value, words),
        }
    }
    document
}

/// Mutates one value, and keeps its type.
fn change(random: &mut Random, value: &mut Value, words: &[&str]) {
    match value {
        Value::String(text) => {
            let mutated = bytes(random, &[text.clone().into_bytes()], words);
            *text = String::from_utf8_lossy(&mutated).into_owned();
        }
        Value::Array(values) if !values.is_empty() => {
            let at = random.below(values.len());
            let value = values.remove(at);
            if random.below(2) == 0 {
                values.extend([value.clone(), value]);
            }
        }
        Value::Object(values) if !values.is_empty() => {
            let key = values.keys().nth(random.below(values.len())).cloned();
            let value = key.and_then(|key| values.remove(&key));
            if random.below(2) == 0 {
                values.insert((*random.pick(words)).to_owned(), value.unwrap_or_default());
            }
        }
        Value::Number(_) => *value = (*random.pick(&NUMBERS)).into(),
        Value::Bool(flag) => *flag = !*flag,
        _ => *value = (*random.pick(words)).into(),
    }
}

/// Returns the number of values in `value`, itself among them.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(values) => values.iter().map(count).sum(),
        Value::Object(values) => values.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// Returns the value at position `at` of those that [`count`] counts.
fn nth<'v>(value: &'v mut Value, at: &mut usize) -> Option<&'v mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(values) => values.iter_mut().find_map(|value| nth(value, at)),
        Value::Object(values) => values.values_mut().find_map(|value| nth(value, at)),
        _ => None,
    }
}

/// Reads every manifest of the examples and the tests that is small enough to be tried often.
fn manifests() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut manifests = Vec::new();
    for folder in ["examples", "tests/manifests/valid", "tests/manifests/invalid"] {
        let entries = std::fs::read_dir(root.join(folder)).unwrap().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        paths.sort();
        manifests.extend(paths.iter().map(|path| std::fs::read(path).unwrap()));
    }
    manifests.retain(|manifest| manifest.len() < 16 << 10);
    manifests
}
