//! `init`: writes a commented manifest for this repository.
#![expect(clippy::disallowed_methods, reason = "writes the manifest that the user asks for")]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use seedbed::host::git::Git;
use seedbed::host::text::printable;
use seedbed::host::{Host, process};
use seedbed::name::{NAME_MAX, is_name};
use seedbed::report::{Initialized, SCHEMA_VERSION, error};

use super::exit::{Failure, Status};
use super::project::{self, MANIFEST};
use super::{Global, output};

pub(super) fn run(global: &Global) -> Result<ExitCode, Failure> {
    let directory = project::directory(global)?;
    let path = directory.join(global.manifest.as_deref().unwrap_or(Path::new(MANIFEST)));
    let shown = printable(&path.to_string_lossy());
    let host = project::host(global)?;
    let git = Git::discover(&host, &directory);
    let is_repository = git.line(["rev-parse", "--git-dir"]);
    global.unless_interrupted()?;
    match is_repository {
        Ok(_) => {}
        Err(process::Error::Failed { .. }) => {
            let directory = printable(&directory.to_string_lossy());
            let message =
                format!("{directory} is in no git repository, which sessions need\nhelp: run `git init`");
            return Err(Failure::new(error::NO_REPOSITORY, message));
        }
        Err(error) => return Err(error.into()),
    }
    let found = Facts::read(&git, &host);
    global.unless_interrupted()?;
    let text = manifest(&swarm_name(&directory), &found);
    let written = File::options()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Failure::new(
                error::MANIFEST_EXISTS,
                format!(
                    "{shown} exists already, and was not changed\nhelp: remove it, or name another file with `-f FILE`"
                ),
            ));
        }
        Err(error) => return Err(Failure::from_file_error(format!("cannot write {shown}: {error}"))),
    }
    if global.json {
        output::print_json_pretty(&Initialized {
            schema_version: SCHEMA_VERSION,
            manifest: path,
            has_commit: found.has_commit,
        });
    } else if !global.quiet {
        if !found.has_commit {
            say!("sessions start from a commit, and the repository has none yet: run `git commit`");
        }
        say!("wrote {shown}; next: `seedbed plan`");
    }
    Ok(Status::Done.into())
}

/// Returns a valid swarm name derived from the directory's name.
fn swarm_name(directory: &Path) -> String {
    let directory = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let name = directory.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(NAME_MAX)
        .collect();
    if is_name(&name) { name } else { "swarm".to_owned() }
}

/// Lock files of package managers at the top of a repository, with the commands that install the listed packages.
const LOCK_FILES: [(&str, &[&str]); 14] = [
    ("package-lock.json", &["npm", "ci"]),
    ("pnpm-lock.yaml", &["pnpm", "install", "--frozen-lockfile"]),
    ("yarn.lock", &["yarn", "install", "--frozen-lockfile"]),
    ("bun.lock", &["bun", "install", "--frozen-lockfile"]),
    ("bun.lockb", &["bun", "install", "--frozen-lockfile"]),
    ("uv.lock", &["uv", "sync", "--frozen"]),
    ("poetry.lock", &["poetry", "install"]),
    ("Pipfile.lock", &["pipenv", "sync"]),
    ("Gemfile.lock", &["bundle", "install"]),
    ("composer.lock", &["composer", "install"]),
    ("mix.lock", &["mix", "deps.get"]),
    ("pubspec.lock", &["dart", "pub", "get"]),
    ("go.sum", &["go", "mod", "download"]),
    ("Cargo.lock", &["cargo", "fetch", "--locked"]),
];

/// Untracked files of a workspace that its programs often need.
const UNTRACKED: [&str; 4] = [".env", ".env.local", ".env.development.local", ".envrc"];

/// Directories for worktrees that a repository may ignore already.
const ROOT_DIRECTORIES: [&str; 2] = [".worktrees", "worktrees"];

/// First parts of branch names; the next one is tried if a branch has the previous name.
const PREFIXES: [&str; 3] = ["agents", "sessions", "swarm"];

/// Features of a repository that its manifest can use.
struct Facts {
    has_commit: bool,
    base_ref: String,
    prefix: &'static str,
    root_directory: Option<&'static str>,
    copy: Vec<String>,
    /// Commands that install dependencies, each with `true` if its program is in `PATH`.
    setup: Vec<(&'static [&'static str], bool)>,
}

impl Facts {
    fn read(git: &Git<'_>, host: &Host) -> Self {
        let lines = |args: &[&str]| -> Vec<String> {
            let listed = git.run(args).unwrap_or_default();
            let names = listed.split(|byte| matches!(byte, 0 | b'\n')).filter(|name| !name.is_empty());
            names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
        };
        let files = lines(&["ls-tree", "-z", "--name-only", "--full-tree", "HEAD"]);
        let is_there = |lock: &str| files.iter().any(|file| file == lock);
        let setup = LOCK_FILES.iter().filter(|(lock, _)| is_there(lock));
        let branches = lines(&["for-each-ref", "--format=%(refname:short)", "refs/heads"]);
        let is_free = |prefix: &&str| !branches.iter().any(|branch| branch == prefix);
        // Git compares a name that ends in `/` with an empty line of CRLF too. The path of a file below has no such
        // match.
        let is_ignored =
            |root: &&str| git.run(["check-ignore", "--quiet", "--", &format!("{root}/-")]).is_ok();
        Self {
            has_commit: git.line(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).is_ok(),
            base_ref: git.line(["symbolic-ref", "--short", "HEAD"]).unwrap_or_else(|_| "HEAD".to_owned()),
            prefix: PREFIXES.into_iter().find(is_free).unwrap_or("seedbed"),
            root_directory: ROOT_DIRECTORIES.into_iter().find(is_ignored),
            copy: lines(&[&["ls-files", "-z", "--others", "--"], &UNTRACKED[..]].concat()),
            setup: setup.map(|(_, command)| (*command, is_in_path(host, command[0]))).collect(),
        }
    }

    /// Returns the lines of `[defaults.git-worktree]` that depend on the repository.
    fn options(&self) -> String {
        let copy: Vec<_> = self.copy.iter().map(|name| toml_string(name)).collect();
        let lines = [
            format!("base-ref = {}  # resolved once, when planning", toml_string(&self.base_ref)),
            "# The branch of each session; one with commits outlasts it, and the next apply continues on it."
                .to_owned(),
            format!("branch = \"{}/{{{{ session.slug }}}}\"", self.prefix),
            self.root_directory.map_or_else(String::new, |root| {
                format!("root-directory = {}  # ignored here already", toml_string(root))
            }),
            if copy.is_empty() {
                "# copy = [\".env\"]  # untracked files that every worktree needs".to_owned()
            } else {
                format!("copy = [{}]  # untracked files that every worktree needs", copy.join(", "))
            },
        ];
        lines.iter().filter(|line| !line.is_empty()).map(|line| line.clone() + "\n").collect()
    }

    /// Returns the `setup` of a session, commented out if there is no command or a program is missing here.
    fn setup(&self) -> String {
        let commands: Vec<_> = self.setup.iter().map(|(command, _)| format!("{command:?}")).collect();
        if commands.is_empty() {
            return "# setup = [[\"npm\", \"ci\"]]  # run in the session's directory once it exists\n"
                .to_owned();
        }
        let is_here = self.setup.iter().all(|(_, is_here)| *is_here);
        let mark = if is_here { "" } else { "# " };
        let why = if is_here {
            "once it exists"
        } else {
            "once it exists; some of its programs are not in PATH here"
        };
        format!("{mark}setup = [{}]  # run in the session's directory {why}\n", commands.join(", "))
    }
}

fn is_in_path(host: &Host, program: &str) -> bool {
    let path = host.environment.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
    std::env::split_paths(&path.unwrap_or_default()).any(|directory| directory.join(program).is_file())
}

fn manifest(swarm: &str, found: &Facts) -> String {
    let (options, setup) = (found.options(), found.setup());
    format!(
        r#"# Sessions of this swarm. `seedbed plan` shows the changes, `seedbed apply` applies them,
# `seedbed destroy` removes all sessions. `seedbed schema` prints the schema of this file, for editors.
version = 1
swarm = "{swarm}"

[workspace]
root = "."  # the repository, relative to this file

[defaults.git-worktree]
{options}
[defaults.port-range]
block-size = 16  # ports a session

# One table per session; its name selects it: `seedbed exec lead -- make test`.
[session.lead]
resources = ["git-worktree", {{ kind = "port-range", names = ["http"] }}]
env = {{ ROLE = "lead" }}
prompt = ["You coordinate. Your service listens on {{{{ port.http }}}}."]
{setup}
# Children without `resources` share their parent's: a worktree each, and a share of its ports.
[session.lead.child.coder]
count = 2  # coder-0, coder-1
env = {{ ROLE = "coder", LEAD_URL = "http://localhost:{{{{ parent.port.http }}}}" }}
{setup}"#
    )
}

/// Converts text to a TOML basic string: a JSON string is one, except for escaped `/`, which JSON output never
/// contains.
fn toml_string(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| "\"HEAD\"".to_owned())
}
