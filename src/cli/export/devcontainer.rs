//! Configuration file of a dev container for one session. Pure.

use serde_json::{Map, Value, json};

use seedbed::provider::MountAccess;

use super::FILE_MARK;
use super::containers::{Container, Containers};
use crate::cli::exit::Failure;

/// Returns the content of `devcontainer.json`.
///
/// The object form of `mounts` has no `readonly`, so each mount is the text of an option `--mount`. Tools expand
/// `${NAME}` in all values, and no quoting prevents it, so a value with `${` is refused.
pub(super) fn configuration(containers: &Containers<'_>) -> Result<String, Failure> {
    let Containers { swarm, digest, image, .. } = containers;
    let session = containers.only("devcontainer")?;
    let workspace = session.workspace();
    let mut mounts = Vec::new();
    let mut workspace_mount = Value::Null;
    for (path, access) in &session.mounts {
        let text = mount(session, session.text(path)?, *access)?;
        if Some(path.as_path()) == workspace { workspace_mount = text.into() } else { mounts.push(text) }
    }
    let mut environment = Map::new();
    for (name, value) in &session.environment {
        environment.insert(name.clone(), unexpanded(session, name, value)?.into());
    }
    let ports: Vec<_> = session.ports.iter().map(|port| format!("127.0.0.1:{port}:{port}")).collect();
    let configuration = json!({
        "name": format!("{swarm} {}", session.path),
        "image": image,
        "workspaceMount": workspace_mount,
        "workspaceFolder": unexpanded(session, "its directory", session.text(&session.directory)?)?,
        "mounts": mounts,
        "containerEnv": environment,
        "appPort": ports,
        "customizations": { "seedbed": {
            "note": format!("{FILE_MARK} for plan {digest}. Write it again after `seedbed apply`."),
        } },
    });
    Ok(format!("{configuration:#}\n"))
}

/// Returns the value of an option `--mount`: fields of CSV, which has quotes for a comma.
fn mount(session: &Container, path: &str, access: MountAccess) -> Result<String, Failure> {
    let path = unexpanded(session, "the path of a mount", path)?;
    let mut fields = vec!["type=bind".to_owned(), format!("source={path}"), format!("target={path}")];
    if access == MountAccess::ReadOnly {
        fields.push("readonly".to_owned());
    }
    let quoted = fields.iter().map(|field| {
        if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.clone() }
    });
    Ok(quoted.collect::<Vec<_>>().join(","))
}

fn unexpanded<'v>(session: &Container, what: &str, value: &'v str) -> Result<&'v str, Failure> {
    if value.contains("${") {
        return Err(session.refuse(what, "`${`, which readers of `devcontainer.json` expand"));
    }
    Ok(value)
}
