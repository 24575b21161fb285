//! `fleet kubernetes`: writes the objects of Kubernetes whose pods are the hosts of a fleet.

mod objects;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use seedbed::host::text::printable;
use seedbed::manifest::Fleet;
use seedbed::report::error;

use self::objects::{Cluster, WORKSPACE};
use crate::cli::exit::{Failure, Status};
use crate::cli::project::Project;
use crate::cli::{Global, output_file, time_limit};

/// Text near the beginning of each file that is written.
const FILE_MARK: &str = "`seedbed fleet kubernetes` wrote this file";

/// Maximum length of the name of the objects: a label of DNS has 63 characters, and the name of a pod has up to 13 more
/// than that of its Job.
const NAME_MAX: usize = 50;

/// Maximum length of the list of all hosts, in bytes: Linux limits one variable to 128 KiB.
const HOSTS_MAX: usize = 120_000;

/// Arguments of `fleet kubernetes`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Directory of the fleet in every pod, where the shared volume is mounted; absolute
    #[arg(value_name = "DIR")]
    shared: PathBuf,
    /// Image of the pods, with sh, git, seedbed and kubectl
    #[arg(long, value_name = "IMAGE")]
    image: String,
    /// Repository with the manifest, as `git clone` reads it in every pod
    #[arg(long, value_name = "URL")]
    repository: String,
    /// End the pods after this time, and lose what is only in them (`90m`, `8h`)
    #[arg(long, value_name = "TIME", value_parser = time_limit)]
    time: Duration,
    /// Name of the objects [default: the name of the swarm]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Number of hosts [default: the shards and spares of the manifest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pods: Option<u32>,
    /// CPUs of each host
    #[arg(long, value_name = "QUANTITY", default_value = "1", value_parser = quantity)]
    cpu: String,
    /// Memory of each host
    #[arg(long, value_name = "QUANTITY", default_value = "2Gi", value_parser = quantity)]
    memory: String,
    /// Size of the shared volume
    #[arg(long, value_name = "QUANTITY", default_value = "1Gi", value_parser = quantity)]
    storage: String,
    /// Class of the shared volume, which many pods can write to [default: that of the cluster]
    #[arg(long, value_name = "NAME", value_parser = object_name)]
    storage_class: Option<String>,
    /// Write into this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let project = Project::find(global)?;
    let manifest = project.manifest()?;
    let usage = |text: String| Failure::new(error::USAGE, text);
    let name = arguments.name.clone().map_or_else(
        || {
            label(&manifest.swarm)
                .map_err(|why| format!("the name of the swarm {why}\nhelp: pass `--name NAME`"))
        },
        |name| label(&name).map_err(|why| format!("`--name` {why}")),
    );
    let cluster = Cluster {
        swarm: &manifest.swarm,
        name: name.map_err(usage)?,
        pods: arguments.pods.map_or_else(|| pods(manifest.fleet), Ok).map_err(usage)?,
        directory: mount(&arguments.shared).map_err(usage)?,
        image: &arguments.image,
        repository: &arguments.repository,
        seconds: arguments.time.as_secs().max(1),
        cpu: &arguments.cpu,
        memory: &arguments.memory,
        storage: &arguments.storage,
        storage_class: arguments.storage_class.as_deref(),
    };
    if cluster.hosts().len() > HOSTS_MAX {
        return Err(usage(
            "the names of the hosts are too long for one command\nhelp: pass a shorter `--name`".into(),
        ));
    }
    let text = cluster.document(FILE_MARK);
    if let Some(path) = output_file::write_or_print(global, arguments.output.as_deref(), FILE_MARK, &text)? {
        say!("run `kubectl apply -f {path}` to create the pods; the file has the next commands");
    }
    Ok(Status::Done.into())
}

/// Returns the number of hosts that the manifest requests.
fn pods(fleet: Option<Fleet>) -> Result<u32, String> {
    let shards = fleet.and_then(|fleet| Some((fleet.shards?, fleet.spares)));
    shards.map(|(shards, spares)| shards + spares).ok_or_else(|| {
        "the manifest has no number of shards\nhelp: set `shards` in `[fleet]`, or pass `--pods N`".to_owned()
    })
}

/// Checks the directory of the fleet, which is a mount point in the pods.
fn mount(path: &std::path::Path) -> Result<String, String> {
    let text = path.to_str().filter(|text| text.starts_with('/') && !text.contains(':'));
    let is_plain = path.components().skip(1).all(|part| matches!(part, std::path::Component::Normal(_)));
    match text.map(|text| text.trim_end_matches('/')) {
        Some(text) if is_plain && !text.is_empty() && !path.starts_with(WORKSPACE) => Ok(text.to_owned()),
        _ => Err(format!(
            "the volume cannot be mounted at {}\nhelp: pass an absolute directory outside {WORKSPACE}, without `:` and `..`",
            printable(&path.to_string_lossy())
        )),
    }
}

/// Checks a name that DNS can have: the error is a reason, after what the name is.
fn label(text: &str) -> Result<String, String> {
    let is_label = text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if is_label && text.len() <= NAME_MAX {
        return Ok(text.to_owned());
    }
    Err(format!(
        "is no name for Kubernetes: it needs lower-case letters, digits and `-`, a letter first, and at most {NAME_MAX} characters"
    ))
}

/// Parses the name of an object that exists: labels of DNS with dots between them.
fn object_name(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let has_ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        label.starts_with(has_ends)
            && label.ends_with(has_ends)
            && label.chars().all(|c| has_ends(c) || c == '-')
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        Ok(text.to_owned())
    } else {
        Err("it needs lower-case letters, digits, `-` and `.`".to_owned())
    }
}

/// Parses a quantity of Kubernetes above 0.
fn quantity(text: &str) -> Result<String, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let is_unit =
        ["", "m", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi"].contains(&&text[number.len()..]);
    let is_number = number.starts_with(|c: char| c.is_ascii_digit())
        && number.chars().all(|c| c.is_ascii_digit() || c == '.')
        && number.parse::<f64>().is_ok_and(|number| number > 0.0);
    if is_unit && is_number {
        Ok(text.to_owned())
    } else {
        Err("a quantity is a number above 0, perhaps with a unit: `500m`, `2`, `4Gi`".to_owned())
    }
}
