//! `init`: a commented manifest for this repository.
#![expect(clippy::disallowed_methods, reason = "writes the manifest that the user asks for")]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use seedbed::host::git::Git;
use seedbed::host::text::printable;
use seedbed::name::{NAME_MAX, is_name};

use super::Global;
use super::exit::{Failure, Status};
use super::setting::{self, MANIFEST};

pub(super) fn run(global: &Global) -> Result<ExitCode, Failure> {
    let directory = setting::directory(global)?;
    let path = directory.join(global.manifest.as_deref().unwrap_or(Path::new(MANIFEST)));
    let shown = printable(&path.to_string_lossy());
    let host = setting::host(global)?;
    let branch = Git::around(&host, &directory).line(["symbolic-ref", "--short", "HEAD"]);
    global.unless_interrupted()?;
    let base_ref = branch.unwrap_or_else(|_| "HEAD".to_owned());
    let text = manifest(&swarm_name(&directory), &base_ref);
    let written = File::options()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Failure::Usage(format!("{shown} exists already; it was left as it is")));
        }
        Err(error) => return Err(Failure::Other(format!("cannot write {shown}: {error}"))),
    }
    if !global.quiet {
        say!("wrote {shown}; next: seedbed plan");
    }
    Ok(Status::Done.into())
}

/// The directory's name, as far as it can be a swarm's.
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

fn manifest(swarm: &str, base_ref: &str) -> String {
    let base_ref = toml_string(base_ref);
    format!(
        r#"# What this swarm needs. `seedbed plan` shows what it comes to, `seedbed apply` makes it real,
# `seedbed destroy` takes it away again. `seedbed schema` prints the schema of this file, for editors.
version = 1
swarm = "{swarm}"

[workspace]
root = "."                            # the repository, relative to this file

[defaults.git-worktree]
base-ref = {base_ref}                 # resolved once, when planning
# copy = [".env"]                     # untracked files that every worktree needs

[defaults.port-range]
block-size = 16                       # ports a session

# One table a session; what it is called is how it is found: `seedbed exec lead -- make test`.
[session.lead]
resources = ["git-worktree", {{ kind = "port-range", names = ["http"] }}]
env = {{ ROLE = "lead" }}
prompt = ["You coordinate. Your service listens on {{{{ port.http }}}}."]
# setup = [["npm", "ci"]]             # run in the session's directory once it stands

# Children without `resources` share their parent's: a worktree each, and a part of its ports.
[session.lead.child.coder]
count = 2                             # coder-0, coder-1
env = {{ ROLE = "coder", LEAD_URL = "http://localhost:{{{{ parent.port.http }}}}" }}
"#
    )
}

/// A TOML basic string is a JSON string, but for the escapes of `/`, which JSON does not write.
fn toml_string(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| "\"HEAD\"".to_owned())
}
