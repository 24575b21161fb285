//! Implements the program of an external kind in Rust: a scratch directory for each session, beside the repository's
//! files.
//!
//! A manifest names it with `[provider.scratch]` and `command = ["path/of/this/program"]`. It runs in the workspace
//! root.
#![expect(clippy::disallowed_methods, reason = "a program may do what the library does not")]

use std::error::Error;
use std::path::Path;
use std::{fs, io};

use seedbed::provider::external::protocol::{
    DoneAnswer, InspectAnswer, LeaseCondition, LeaseRequest, PlanAnswer, PlanRequest, Planned,
    ProvisionAnswer, Request, SessionRequest,
};
use seedbed::serde_json::{self, Map, Value};

fn main() -> Result<(), Box<dyn Error>> {
    serve(io::stdin(), io::stdout())
}

/// Reads one request and writes its answer. An error ends the program, and seedbed prints it.
pub(crate) fn serve(requests: impl io::Read, mut answers: impl io::Write) -> Result<(), Box<dyn Error>> {
    let answer = match serde_json::from_reader(requests)? {
        Request::Plan(request) => serde_json::to_value(plan(&request)),
        Request::Provision(lease) => {
            fs::create_dir_all(directory(&lease)?)?;
            fs::write(mark(&lease)?, &lease.owner)?;
            serde_json::to_value(ProvisionAnswer::done())
        }
        Request::Inspect(lease) => serde_json::to_value(inspect(&lease)?),
        Request::Release(lease) => {
            // The directory of another swarm is not removed, and a directory that is already missing is no error.
            if is_own(&lease)? {
                fs::remove_dir_all(directory(&lease)?)?;
            }
            serde_json::to_value(DoneAnswer::done())
        }
        _ => return Err("a newer seedbed asks for what this program does not know".into()),
    };
    Ok(answers.write_all(answer?.to_string().as_bytes())?)
}

/// Plans without any effect, and returns the same answer for the same request. Every session gets a directory of its
/// own, and so does a child.
fn plan(request: &PlanRequest) -> PlanAnswer {
    let planned = |asked: &SessionRequest| {
        let directory = format!(".scratch/{}", asked.name);
        let variable = format!("{{{{ workspace.root }}}}/{directory}");
        let mut planned = Planned::new(Map::from_iter([("directory".to_owned(), directory.into())]));
        planned.env.insert("SCRATCH_DIR".to_owned(), variable);
        (asked.request.clone(), planned)
    };
    PlanAnswer::new(request.sessions.iter().map(planned).collect())
}

fn inspect(lease: &LeaseRequest) -> io::Result<InspectAnswer> {
    if !is_own(lease)? {
        return Ok(InspectAnswer::damaged(LeaseCondition::Broken, "its directory is gone".to_owned()));
    }
    let files = fs::read_dir(directory(lease)?)?.count() - 1;
    let mut answer = InspectAnswer::healthy();
    if files > 0 {
        answer.unsaved_work.push(format!("{files} scratch file(s)"));
    }
    Ok(answer)
}

fn directory(lease: &LeaseRequest) -> io::Result<&Path> {
    let directory = lease.allocation.get("directory").and_then(Value::as_str);
    directory.map(Path::new).ok_or_else(|| io::Error::other("the allocation names no directory"))
}

fn mark(lease: &LeaseRequest) -> io::Result<std::path::PathBuf> {
    Ok(directory(lease)?.join(".owner"))
}

fn is_own(lease: &LeaseRequest) -> io::Result<bool> {
    match fs::read_to_string(mark(lease)?) {
        Ok(owner) => Ok(owner == lease.owner),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
