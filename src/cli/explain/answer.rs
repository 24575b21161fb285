//! Explanation, as text and as data.

use std::fmt::Write as _;

use seedbed::host::listeners::Listener;
use seedbed::host::text::{printable, printable_command};
use seedbed::manifest::Excerpt;
use seedbed::plan::Session;
use seedbed::report::{Explanation, Owner, Position, SCHEMA_VERSION};

use super::super::{Global, output, terminal};
use super::sources::LocatedPlan;

/// Explanation, with the additions of its text form.
pub(super) struct Answer {
    pub(super) document: Explanation,
    excerpts: Vec<Excerpt>,
    /// `true` if the explanation is about ports, so that "nothing listens" is worth a line.
    pub(super) has_ports: bool,
}

/// Returns the session as the owner of the explained subject.
pub(super) fn owner_of(located: &LocatedPlan, session: &Session) -> Owner {
    Owner {
        swarm: located.plan.swarm().to_owned(),
        workspace: located.workspace.clone(),
        session: session.path.to_string(),
        id: session.id.clone(),
        index: session.index,
        state: located.state,
        own: located.own,
    }
}

impl Answer {
    pub(super) fn new(summary: String) -> Self {
        let document = Explanation {
            schema_version: SCHEMA_VERSION,
            summary,
            port: None,
            path: None,
            owner: None,
            rules: Vec::new(),
            other_owners: Vec::new(),
            manifest: Vec::new(),
            ephemeral: None,
            listeners: Vec::new(),
        };
        Self { document, excerpts: Vec::new(), has_ports: false }
    }

    /// Adds a line of the manifest.
    pub(super) fn add_excerpt(&mut self, excerpt: Option<Excerpt>) {
        let Some(excerpt) = excerpt else { return };
        let (line, column) = excerpt.position();
        let (file, length) = (excerpt.file_name().to_owned(), excerpt.length());
        self.document.manifest.push(Position { file, line, column, length, message: excerpt.to_string() });
        self.excerpts.push(excerpt);
    }

    pub(super) fn show(&self, global: &Global) {
        if global.json {
            output::print_json_pretty(&self.document);
        } else {
            output::print(&self.text());
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", printable(&self.document.summary));
        let mut line = |label: &str, document: &str| {
            let _ = writeln!(text, "  {label:<10} {}", printable(document));
        };
        if let Some(owner) = &self.document.owner {
            line("session", &format!("{}, number {} of swarm {}", owner.id, owner.index, owner.swarm));
            line("workspace", &owner.workspace.to_string_lossy());
        }
        for (at, rule) in self.document.rules.iter().enumerate() {
            line(if at == 0 { "because" } else { "" }, rule);
        }
        for (at, holder) in self.document.other_owners.iter().enumerate() {
            line(if at == 0 { "in use by" } else { "" }, holder);
        }
        if self.document.ephemeral == Some(true) {
            line(
                "ephemeral",
                "the kernel gives it to outgoing connections too, which may have it at any time",
            );
        }
        let listeners: Vec<_> = self.document.listeners.iter().map(listener).collect();
        for (at, listener) in listeners.iter().enumerate() {
            line(if at == 0 { "listening" } else { "" }, listener);
        }
        if listeners.is_empty() && self.has_ports {
            line("listening", "nothing");
        }
        for excerpt in &self.excerpts {
            let _ = write!(text, "\n{}\n", terminal::diagnostic(excerpt, &std::io::stdout()).trim_end());
        }
        text
    }
}

fn listener(listener: &Listener) -> String {
    let socket =
        format!("{} {}", listener.protocol, std::net::SocketAddr::new(listener.address, listener.port));
    if listener.processes.is_empty() {
        return format!("{socket}: its process is unknown, and belongs to user {}", listener.user);
    }
    let process = |process: &seedbed::host::listeners::Running| {
        format!("pid {} `{}`", process.pid, printable_command(&process.command))
    };
    let processes: Vec<_> = listener.processes.iter().map(process).collect();
    format!("{socket}: {}", processes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::net::Ipv6Addr;

    fn document(processes: &Value) -> String {
        let address = Ipv6Addr::UNSPECIFIED;
        let socket =
            json!({ "protocol": "tcp", "address": address, "port": 80, "user": 33, "processes": processes });
        listener(&serde_json::from_value(socket).unwrap())
    }

    #[test]
    fn unknown_process_is_reported_as_unknown() {
        assert_eq!(document(&json!([])), "tcp [::]:80: its process is unknown, and belongs to user 33");
    }

    #[test]
    fn command_line_of_a_process_is_escaped_and_cut() {
        let running = |command: &str| json!([{ "pid": 7, "command": command }]);
        assert_eq!(document(&running("a\u{1b}[2J\nb")), "tcp [::]:80: pid 7 `a\\u{1b}[2J\\nb`");
        let long = document(&running(&"ü".repeat(1000)));
        assert_eq!(long, format!("tcp [::]:80: pid 7 `{}…`", "ü".repeat(120)));
    }
}
