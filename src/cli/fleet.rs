//! `fleet`: one manifest on several hosts.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::exit::Failure;
use super::{Global, example};

mod allocate;
mod kubernetes;
mod apply;
pub(super) mod forgotten;
mod clone;
mod collect;
mod command;
mod command_output;
mod command_phase;
mod opened;
mod phase;
mod plan;
mod run;
mod status;

/// Arguments of `fleet`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plan the parts of all hosts from their observations
    ///
    /// Each session at the top of the tree is placed on a shard with all below it. Nothing is changed, and no host is
    /// contacted.
    #[command(after_help = example::help("fleet plan"))]
    Plan(plan::Arguments),
    /// Apply the manifest on all hosts, or on none
    ///
    /// Every host is observed, prepares its part and votes. The parts are committed only if all hosts have voted for the same
    /// plan.
    #[command(after_help = example::help("fleet apply"))]
    Apply(apply::ApplyArguments),
    /// Show the state of every host
    ///
    /// A host that gives no report is not heard of, with the time of its last report. Exits with 30 unless every host is as it
    /// was committed.
    #[command(after_help = example::help("fleet status"))]
    Status(opened::FleetArguments),
    /// Run a command in sessions of all hosts, with their environment
    ///
    /// Each host runs the command in its own sessions. Lines of output have the names of host and session before them. Exits
    /// with the largest code of the commands, and at least with 125 if a host is lost.
    #[command(after_help = example::help("fleet exec"))]
    Exec(command::ExecArguments),
    /// Run the `command` of sessions on all hosts until all have ended
    ///
    /// The commands end with this one: by Ctrl-C, or when their host cannot reach it any more. Exits as `fleet exec` does.
    #[command(after_help = example::help("fleet start"))]
    Start(command::StartArguments),
    /// Bring the commits of sessions of all hosts to this one, and show the results
    ///
    /// Nothing is merged. The commits are then at refs below `refs/seedbed/collected`. Exits with 30 if the results of a host
    /// are missing.
    #[command(after_help = example::help("fleet collect"))]
    Collect(collect::Arguments),
    /// Release the sessions of all hosts, or none
    ///
    /// Unsaved work on any host is a reason to refuse, unless `--rescue` or `--discard` is given.
    #[command(after_help = example::help("fleet destroy"))]
    Destroy(run::DestroyArguments),
    /// Let every host follow the decisions of interrupted runs
    ///
    /// A run without a decision is aborted. Any other seedbed on a host follows the decisions first, too.
    #[command(after_help = example::help("fleet recover"))]
    Recover(opened::FleetArguments),
    /// Write the objects of Kubernetes whose pods are the hosts
    ///
    /// An Indexed Job has a pod for each host, and a pod beside it is the coordinator's. No cluster is contacted.
    #[command(after_help = example::help("fleet kubernetes"))]
    Kubernetes(kubernetes::Arguments),
    /// Repair the sessions of all hosts, and place those of lost hosts elsewhere
    ///
    /// The manifest has to be the one that was applied. A lost host keeps its sessions, unless it is given up with
    /// `--forget HOST`.
    #[command(after_help = example::help("fleet repair"))]
    Repair(apply::RepairArguments),
    /// Do the part of one host in a run over all hosts
    #[command(hide = true)]
    Phase(phase::Arguments),
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.command {
        Command::Plan(arguments) => plan::run(global, arguments),
        Command::Apply(arguments) => apply::apply(global, arguments),
        Command::Status(arguments) => status::run(global, arguments),
        Command::Exec(arguments) => Ok(command::exec(global, arguments)),
        Command::Start(arguments) => Ok(command::start(global, arguments)),
        Command::Collect(arguments) => collect::run(global, arguments),
        Command::Destroy(arguments) => run::destroy(global, arguments),
        Command::Recover(arguments) => run::recover(global, arguments),
        Command::Kubernetes(arguments) => kubernetes::run(global, arguments),
        Command::Repair(arguments) => apply::repair(global, arguments),
        Command::Phase(arguments) => phase::run(global, arguments),
    }
}
