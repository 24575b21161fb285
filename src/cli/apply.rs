//! `apply`: makes the manifest, or a saved plan, real.
#![expect(clippy::disallowed_methods, reason = "reads the plan file that the user names")]

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use seedbed::apply::{self, Context, Overtaken};
use seedbed::host::text::printable;
use seedbed::manifest::Manifest;
use seedbed::observe;
use seedbed::plan::{Action, Plan, SCHEMA_VERSION};
use seedbed::review::{self, Review};
use seedbed::state::{Locked, Record};

use super::exit::{Failure, Status};
use super::locked::{locked, recover};
use super::outcome::Outcome;
use super::setting::Setting;
use super::unsaved::UnsavedWork;
use super::{Global, plan, print};

/// What `apply` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A plan that `seedbed plan -o` saved: exactly it is applied, or refused as stale
    plan: Option<PathBuf>,
    #[command(flatten)]
    unsaved: UnsavedWork,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let setting = Setting::find(global)?;
    setting.catch_signals()?;
    // A fault of the manifest is told before anything is waited for.
    let manifest = setting.manifest()?;
    let plan = locked(global, &setting, "apply", |context| {
        let options = apply::Options { unsaved: arguments.unsaved.into() };
        recover(global, context, options.unsaved)?;
        let Some(path) = &arguments.plan else {
            return apply_manifest(global, &setting, context, &manifest, options);
        };
        let (plan, record) = saved(&setting, context.swarm, &super::setting::directory(global)?.join(path))?;
        consent(global, &plan)?;
        apply::apply(context, &plan, record.as_ref(), options)?;
        Ok(plan)
    })?;
    if global.json {
        print::json(&Outcome::applied(&plan.digest));
    } else if !global.quiet {
        print::out(&print::sessions(&plan.sessions));
        eprintln!("{}", outcome(&plan));
    }
    Ok(Status::Done.into())
}

/// Plans and applies; where another run took what was planned before this one got to it, plans anew.
pub(super) fn apply_manifest(
    global: &Global,
    setting: &Setting,
    context: &Context<'_>,
    manifest: &Manifest,
    options: apply::Options,
) -> Result<Plan, Failure> {
    let (mut plan, mut survey) = plan::make(setting, context.swarm, manifest)?;
    let mut overtaken = Overtaken::default();
    loop {
        consent(global, &plan)?;
        let error = match apply::apply(context, &plan, survey.record.as_ref(), options) {
            Ok(()) => return Ok(plan),
            Err(error) if error.is_undone() => error,
            Err(error) => return Err(error.into()),
        };
        let planned = plan;
        (plan, survey) = plan::make(setting, context.swarm, manifest)?;
        let standing = survey.standing.as_ref();
        let Some(why) = overtaken.by(&error, &planned, &setting.registry, &survey.observation, standing)
        else {
            return Err(error.into());
        };
        if !global.quiet && !global.json {
            eprintln!("another run was faster ({}); planning anew", printable(&why));
        }
    }
}

/// A saved plan, if it still holds.
fn saved(setting: &Setting, swarm: &Locked<'_>, path: &Path) -> Result<(Plan, Option<Record>), Failure> {
    let unusable = |why: String| Failure::PlanFile(format!("{} {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
    let document: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| unusable(format!("is not a plan: {error}")))?;
    match document.get("schemaVersion").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(SCHEMA_VERSION) => {}
        Some(version) => {
            return Err(unusable(format!(
                "has format {version}, and this seedbed reads format {SCHEMA_VERSION}"
            )));
        }
        None => return Err(unusable("is not a plan".to_owned())),
    }
    let plan: Plan =
        serde_json::from_value(document).map_err(|error| unusable(format!("is not a plan: {error}")))?;
    if plan.computed_digest() != plan.digest {
        return Err(unusable("was edited: its digest does not match its content".to_owned()));
    }
    if plan.standing.is_none() && plan.changes != plan.changes_from(&setting.registry, None) {
        return Err(unusable("was edited: its changes do not create its sessions".to_owned()));
    }
    if let Some(session) = plan.misplaced(&setting.registry) {
        return Err(unusable(format!("was edited: no manifest gives {} these places", session.path)));
    }
    let manifest = setting.manifest()?;
    if manifest.swarm != plan.swarm {
        let message =
            format!("is a plan for swarm `{}`, and the manifest is of `{}`", plan.swarm, manifest.swarm);
        return Err(unusable(message));
    }
    let record = swarm.standing()?;
    let questions = apply::questions(&plan, &setting.registry);
    let mut observation =
        observe::observe(&setting.host, swarm.workspace(), &questions).map_err(Failure::Observe)?;
    observation.owner = record.as_ref().map(|record| record.owner.clone());
    let standing = record.as_ref().map(|record| apply::standing(swarm, &setting.registry, record));
    let stale = apply::stale(&plan, &setting.registry, &observation, standing.as_ref());
    if !stale.is_empty() {
        return Err(apply::Error::Stale(stale).into());
    }
    Ok((plan, record))
}

/// What stands is only taken away with consent.
fn consent(global: &Global, plan: &Plan) -> Result<(), Failure> {
    let goes: Vec<_> = plan
        .changes
        .iter()
        .filter(|change| {
            matches!(change.action, Action::Destroy | Action::Replace) && !change.release.is_empty()
        })
        .map(|change| change.session.as_str())
        .collect();
    if goes.is_empty() || global.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::Refused(format!(
            "{} would be destroyed or replaced; look at `seedbed plan`, then say --yes",
            goes.join(", ")
        )));
    }
    let style = print::style(global, &std::io::stderr());
    eprint!(
        "{}\nDestroy or replace {}? [y/N] ",
        Review { plan, notices: &[], observation: None }.text(style),
        goes.join(", ")
    );
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::Refused("nothing was changed".to_owned()))
}

fn outcome(plan: &Plan) -> String {
    if plan.has_changes() {
        format!("swarm {} stands: {}", plan.swarm, review::summary(plan).replace("to ", ""))
    } else {
        format!("swarm {} stands; nothing to do", plan.swarm)
    }
}
