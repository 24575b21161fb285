//! `exec --slot`: the replica with the number of a test runner's worker.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use seedbed::host::Host;
use seedbed::host::text::printable;
use seedbed::plan::Session;
use seedbed::report::error;

use super::super::exit::Failure;
use super::super::lookup::{self, Active, Family};
use super::super::output;

/// Variable in which a test runner numbers its workers.
struct Runner {
    variable: &'static str,
    /// Text before the number.
    prefix: &'static str,
    /// Number of the first worker.
    first: u32,
    /// Option of the runner that limits its workers, without the number.
    limit: &'static str,
}

/// Test runners. The numbers of workers that run at the same time differ, and are the lowest possible ones.
const RUNNERS: [Runner; 4] = [
    Runner { variable: "NEXTEST_TEST_GLOBAL_SLOT", prefix: "", first: 0, limit: "--test-threads " },
    Runner { variable: "PYTEST_XDIST_WORKER", prefix: "gw", first: 0, limit: "-n " },
    // `TEST_WORKER_INDEX` grows when a worker is restarted.
    Runner { variable: "TEST_PARALLEL_INDEX", prefix: "", first: 0, limit: "--workers=" },
    Runner { variable: "JEST_WORKER_ID", prefix: "", first: 1, limit: "--maxWorkers=" },
];

/// Number of a worker, from 0, and the variable that has it.
struct Slot<'v> {
    number: u32,
    variable: &'v str,
    runner: Option<&'static Runner>,
}

/// Returns the replica that the caller's environment selects, of the table `name`, or of the only table with replicas.
/// `variable` has the number; if it is empty, that of a test runner has it.
pub(super) fn session<'f>(
    family: &'f Family<'_>,
    name: Option<&str>,
    variable: &str,
) -> Result<Active<'f>, Failure> {
    let slot = slot(family.swarm.host(), variable)?;
    let replicas = replicas(family, name)?;
    let Some(session) = replicas.iter().find(|session| session.replica == Some(slot.number)) else {
        return Err(no_replica(&slot, &replicas));
    };
    Ok(Active { swarm: &family.swarm, record: &family.record, session })
}

/// Returns the sessions of the only table with replicas, or of the only one with this name or path.
fn replicas<'f>(family: &'f Family<'_>, name: Option<&str>) -> Result<Vec<&'f Session>, Failure> {
    let sessions = family.record.plan.sessions().iter();
    let replicas: Vec<_> = sessions
        .filter(|session| name.is_none_or(|name| lookup::is_replica_of(*session, name)))
        .filter_map(|session| Some((lookup::table_of(session)?, session)))
        .collect();
    let tables: BTreeSet<&str> = replicas.iter().map(|(table, _)| *table).collect();
    let tables: Vec<&str> = tables.into_iter().collect();
    match (&tables[..], name) {
        ([_], _) => Ok(replicas.into_iter().map(|(_, session)| session).collect()),
        ([], Some(name)) => {
            let session = family.session(name)?.session;
            let text = format!(
                "session {} has no replicas\nhelp: set `count` in its table, or use `exec` without `--slot`",
                session.path
            );
            Err(Failure::new(error::SLOT_MISSING, text))
        }
        ([], None) => {
            let text =
                "no session has replicas\nhelp: set `count` in a session table, and run `seedbed apply`";
            Err(Failure::new(error::SLOT_MISSING, text))
        }
        (several, _) => {
            let all: Vec<_> = several.iter().map(|table| format!("`{table}`")).collect();
            let text = format!(
                "several sessions have replicas: {}\nhelp: name one of them: `seedbed exec --slot {} -- CMD`",
                all.join(", "),
                several[0]
            );
            Err(Failure::new(error::SESSION_AMBIGUOUS, text))
        }
    }
}

fn no_replica(slot: &Slot<'_>, replicas: &[&Session]) -> Failure {
    let count = replicas.len();
    let table = replicas.first().and_then(|session| lookup::table_of(*session)).unwrap_or_default();
    let fewer = match slot.runner {
        Some(runner) => format!("start at most that many workers (`{}{count}`)", runner.limit),
        None => "start at most that many workers".to_owned(),
    };
    let text = format!(
        "`{table}` has {}, none for worker {} (`{}`; workers count from 0)\n\
         help: {fewer}, or set `count = {}` and run `seedbed apply`",
        output::count(count, "replica"),
        slot.number,
        slot.variable,
        slot.number.saturating_add(1)
    );
    Failure::new(error::SLOT_MISSING, text)
}

/// Returns the number in a variable; with an empty name, that of the test runner.
fn slot<'v>(host: &Host, variable: &'v str) -> Result<Slot<'v>, Failure> {
    let value = |name: &str| {
        let found =
            host.environment.iter().rev().find(|(variable, _)| variable.as_os_str() == OsStr::new(name));
        found.map(|(_, value)| value.to_string_lossy().into_owned())
    };
    if !variable.is_empty() {
        let runner = RUNNERS.iter().find(|runner| runner.variable == variable);
        let Some(value) = value(variable) else {
            let text = format!("the variable `{}` is not set", printable(variable));
            return Err(Failure::new(error::SLOT_UNKNOWN, text));
        };
        return parsed(variable, &value, runner);
    }
    let mut found = Vec::new();
    for runner in &RUNNERS {
        if let Some(value) = value(runner.variable) {
            found.push(parsed(runner.variable, &value, Some(runner))?);
        }
    }
    let mut slots = found.into_iter();
    let Some(slot) = slots.next() else {
        let all: Vec<_> = RUNNERS.iter().map(|runner| runner.variable).collect();
        let text = format!("no test runner has numbered this worker: none of {} is set", all.join(", "));
        return Err(Failure::new(error::SLOT_UNKNOWN, text));
    };
    match slots.find(|other| other.number != slot.number) {
        None => Ok(slot),
        Some(other) => {
            let text = format!(
                "`{}` and `{}` number this worker differently\nhelp: name the right one: `--slot={}`",
                slot.variable, other.variable, slot.variable
            );
            Err(Failure::new(error::SLOT_UNKNOWN, text))
        }
    }
}

fn parsed<'v>(variable: &'v str, value: &str, runner: Option<&'static Runner>) -> Result<Slot<'v>, Failure> {
    let (prefix, first) = runner.map_or(("", 0), |runner| (runner.prefix, runner.first));
    let digits = value.strip_prefix(prefix).unwrap_or_default();
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| is_number).and_then(|number: u32| number.checked_sub(first));
    number.map(|number| Slot { number, variable, runner }).ok_or_else(|| {
        let text = format!(
            "`{}` is `{}`, which is no number of a worker\nhelp: it has to be `{prefix}{first}` or a higher number",
            printable(variable),
            printable(value)
        );
        Failure::new(error::SLOT_UNKNOWN, text)
    })
}
