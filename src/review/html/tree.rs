//! Session tree of the page: nested lists whose entries open and close without a script.

use std::fmt::Write as _;

use super::{escape, escape_lines, mark, verb};
use crate::host::text::thousands;
use crate::manifest::TextEntry;
use crate::plan::{Action, Session};
use crate::provider::Allocation;
use crate::review::outline::{Entry, Member};
use crate::review::{commands_and_others, folded, ports};

/// Maximum number of entries with which all entries that have children are open at first.
const OPEN: usize = 60;
/// Maximum number of bytes for the data of sessions; after this limit only allocations are shown.
const TOLD: usize = 4 * 1024 * 1024;

/// Writes the tree.
pub(super) fn tree(page: &mut String, entries: &[Entry<'_>]) {
    page.push_str("<section aria-labelledby=\"sessions\">\n<h2 id=\"sessions\">Sessions</h2>\n");
    let open = entries.iter().map(count).sum::<usize>() <= OPEN;
    let mut tree = Tree { page, open, next: 0, told: 0 };
    tree.list(entries, " class=\"tree\"");
    if tree.told > TOLD {
        page.push_str("<p class=\"more\">What the later sessions are told would make this page too large; <code>seedbed plan --json</code> holds all of it.</p>\n");
    }
    page.push_str("</section>\n");
}

fn count(entry: &Entry<'_>) -> usize {
    1 + entry.children.iter().map(count).sum::<usize>()
}

/// Returns the path of an entry from the top of the tree.
pub(super) fn path(entry: &Entry<'_>) -> String {
    let first = entry.first().path().as_str();
    if !entry.is_folded() {
        return first.to_owned();
    }
    match first.rsplit_once('/') {
        Some((above, _)) if entry.each == entry.members.len() => format!("{above}/{}", entry.label()),
        Some((above, _)) => format!("{above} …: {}", entry.label()),
        None => entry.label(),
    }
}

struct Tree<'w> {
    page: &'w mut String,
    open: bool,
    /// Number of the next entry, in the order of writing.
    next: usize,
    told: usize,
}

impl Tree<'_> {
    fn list(&mut self, entries: &[Entry<'_>], attributes: &str) {
        let _ = writeln!(self.page, "<ul{attributes}>");
        for entry in entries {
            self.entry(entry);
        }
        self.page.push_str("</ul>\n");
    }

    fn entry(&mut self, entry: &Entry<'_>) {
        let Member { session, change } = entry.first();
        let name = verb(change.action);
        let own_ports = if entry.is_folded() {
            String::new()
        } else {
            session.map_or(String::new(), |session| ports(entry.registry, session))
        };
        let open = if self.open && !entry.children.is_empty() { " open" } else { "" };
        let _ = write!(
            self.page,
            "<li class=\"{name}\" id=\"s{}\" data-ports=\"{own_ports}\" data-count=\"{}\">\n<details{open}>\n\
             <summary><span class=\"verb\"><b>{}</b> {name}</span> <span class=\"name\">{}</span> \
             <span class=\"gist\">{}</span></summary>\n<div class=\"body\">\n",
            self.next,
            entry.members.len(),
            mark(change.action),
            escape(&entry.label()),
            escape(&gist(entry)),
        );
        self.next += 1;
        if !change.reasons.is_empty() {
            self.page.push_str("<ul class=\"why\">");
            for reason in &change.reasons {
                let _ = write!(self.page, "<li>{}</li>", escape(reason));
            }
            self.page.push_str("</ul>\n");
        }
        if let Some(session) = session {
            self.held(entry, session);
            if self.told <= TOLD {
                self.tell(entry, session);
            }
        }
        if entry.is_folded() {
            self.members(entry);
        }
        self.page.push_str("</div>\n");
        if !entry.children.is_empty() {
            self.list(&entry.children, "");
        }
        self.page.push_str("</details>\n</li>\n");
    }

    fn held(&mut self, entry: &Entry<'_>, session: &Session) {
        self.page.push_str("<table class=\"held\">\n");
        for (at, allocation) in session.allocations.iter().enumerate() {
            let what = folded::held(entry, at, allocation);
            let notes = folded::notes(entry, at);
            let notes =
                notes.iter().fold(String::new(), |list, note| list + "<li>" + &escape(note) + "</li>");
            let notes = if notes.is_empty() { notes } else { format!("<ul>{notes}</ul>") };
            self.row(&escape(&allocation.kind), &format!("<code>{}</code>{notes}", escape(&what)));
        }
        for (key, commands) in commands_and_others(&session.text()).0 {
            for command in commands {
                self.row(key, &format!("<code>{}</code>", escape_lines(&command.shown())));
            }
        }
        self.page.push_str("</table>\n");
    }

    fn tell(&mut self, entry: &Entry<'_>, session: &Session) {
        let begin = self.page.len();
        let whose = if entry.is_folded() {
            format!("What {} is told; the others differ in numbers", escape(session.path.as_str()))
        } else {
            "What it is told".to_owned()
        };
        let _ = write!(self.page, "<details class=\"told\">\n<summary>{whose}</summary>\n<table>\n");
        for (key, entries) in commands_and_others(&session.text()).1 {
            for entry in entries {
                let name = match entry {
                    TextEntry::Variable(name, _) => format!("<code>{}</code>", escape(name)),
                    TextEntry::Value(name, _) => format!("{key} <code>{}</code>", escape(name)),
                    TextEntry::Section(_) | TextEntry::Command(_) => key.to_owned(),
                };
                self.row(&name, &format!("<pre>{}</pre>", escape_lines(&entry.shown())));
            }
        }
        self.page.push_str("</table>\n</details>\n");
        self.told += self.page.len() - begin;
    }

    fn row(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.page, "<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>");
    }

    /// Writes the sessions of a folded entry, one row each.
    fn members(&mut self, entry: &Entry<'_>) {
        let _ = write!(
            self.page,
            "<details class=\"members\">\n<summary>Each of the {}</summary>\n<div class=\"scroll\"><table>\n<thead><tr>\
             <th scope=\"col\">Session</th><th scope=\"col\" class=\"ports\">Ports</th>\
             <th scope=\"col\">Works in</th><th scope=\"col\">Branch</th></tr></thead>\n<tbody>\n",
            thousands(entry.members.len())
        );
        for member in &entry.members {
            let ports = member.session.map_or("-".to_owned(), |session| ports(entry.registry, session));
            let directory = member
                .session
                .map_or(String::new(), |session| session.working_directory.to_string_lossy().into_owned());
            let branch = |held: &Allocation| entry.registry.get(&held.kind)?.branch(held);
            let branch = member.allocations().iter().find_map(branch).unwrap_or_default();
            let _ = writeln!(
                self.page,
                "<tr data-ports=\"{ports}\"><th scope=\"row\">{}</th><td class=\"ports\">{ports}</td><td><code>{}</code></td><td><code>{}</code></td></tr>",
                escape(member.path().as_str()),
                escape(&directory),
                escape(&branch),
            );
        }
        self.page.push_str("</tbody>\n</table></div>\n</details>\n");
    }
}

/// Returns the summary of a closed entry.
fn gist(entry: &Entry<'_>) -> String {
    let member = entry.first();
    let mut parts: Vec<String> = entry.count().into_iter().collect();
    if let Some(session) = member.session {
        if entry.is_folded() {
            let has_ports = |(_, held): &(usize, &Allocation)| {
                entry.registry.get(&held.kind).is_some_and(|kind| kind.ports(held).is_some())
            };
            let blocks = session.allocations.iter().enumerate().find(has_ports);
            parts.extend(blocks.map(|(at, _)| folded::all(entry, at)));
        } else {
            parts.extend(Some(ports(entry.registry, session)).filter(|ports| ports != "-"));
            parts.push(session.working_directory.to_string_lossy().into_owned());
        }
    }
    if !matches!(member.change.action, Action::Create | Action::Keep) {
        parts.extend(member.change.reasons.first().cloned());
    }
    parts.join("  ")
}
