//! Markdown rendering of a plan, as a comment on a pull request.
//!
//! Values are never interpreted as markup. A value is a code span if a code span can contain it. Otherwise it is in
//! `<code>`, with every special character of Markdown or HTML as a character reference.

use std::fmt::Write as _;

use super::outline::{Entry, outline};
use super::{Review, sign, text, verb};
use crate::host::text::{printable, thousands};
use crate::plan::Action;

/// Maximum length of the comment, in bytes.
///
/// A GitHub comment can have 65,536 characters, and a workflow adds text around the plan.
pub const LIMIT: usize = 60_000;
/// Maximum length of the table, in bytes; the rest is for details.
const TABLE: usize = LIMIT / 2;
/// Maximum length of one value in the table, in bytes.
const VALUE: usize = 300;
/// Maximum number of notices.
const NOTICES: usize = 20;

/// Writes the comment.
pub(super) fn markdown(review: &Review<'_>) -> String {
    let plan = review.plan;
    let mut page = format!("### Plan of {}: {}\n\n", code(&plan.swarm), super::summary(plan));
    let entries = outline(review, false);
    let mut rows = Vec::new();
    flatten(&entries, "", &mut rows);
    // Changes that may lose something come first, so that they are never left out.
    rows.sort_by_key(|row| std::cmp::Reverse(row.entry.first().change.action));
    let (kept, changed): (Vec<_>, Vec<_>) =
        rows.iter().partition(|row| row.entry.first().change.action == Action::Keep);
    for condition in super::conditions(plan).iter().take(NOTICES) {
        let _ = writeln!(page, "{}\n", code(&cut(condition)));
    }
    page.push_str(&table(&changed, TABLE));
    for notice in review.notices.iter().take(NOTICES) {
        let _ = writeln!(page, "> {}\n", code(&cut(notice)));
    }
    if !kept.is_empty() {
        let count: usize = kept.iter().map(|row| row.entry.members.len()).sum();
        let room = (TABLE * 3 / 2).saturating_sub(page.len());
        let _ = write!(
            page,
            "<details>\n<summary>{} that stay as they are</summary>\n\n{}</details>\n\n",
            thousands(count),
            table(&kept, room)
        );
    }
    let end = format!("<sub>plan {}</sub>\n", code(&plan.approval()));
    details(&mut page, &changed, LIMIT - end.len());
    page.push_str(&end);
    page
}

/// One entry of the tree, with its path from the top.
struct Row<'e, 'p> {
    path: String,
    entry: &'e Entry<'p>,
}

fn flatten<'e, 'p>(entries: &'e [Entry<'p>], above: &str, rows: &mut Vec<Row<'e, 'p>>) {
    for entry in entries {
        let label = entry.label();
        let path = match (above, entry.is_folded()) {
            ("", _) => label,
            (above, false) => format!("{above}/{label}"),
            (above, true) => format!("{above} / {label}"),
        };
        rows.push(Row { path: path.clone(), entry });
        flatten(&entry.children, &path, rows);
    }
}

/// Returns the rows as a table of at most `room` bytes; rows that do not fit are counted.
fn table(rows: &[&Row<'_, '_>], room: usize) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = "| | session | resources | why |\n|---|---|---|---|\n".to_owned();
    for (at, row) in rows.iter().enumerate() {
        let line = line(row);
        if table.len() + line.len() > room {
            let left: usize = rows[at..].iter().map(|row| row.entry.members.len()).sum();
            let _ = write!(
                table,
                "\n{} more sessions do not fit into a comment; `seedbed plan` shows them all.\n",
                thousands(left)
            );
            break;
        }
        table.push_str(&line);
    }
    table.push('\n');
    table
}

fn line(row: &Row<'_, '_>) -> String {
    let entry = row.entry;
    let member = entry.first();
    let action = member.change.action;
    let resources = member.allocations().iter().enumerate().map(|(at, allocation)| {
        let description = super::folded::description(entry, at, allocation);
        format!("{} {}", allocation.name(), code(&cut(&description)))
    });
    let resources: Vec<_> = resources.collect();
    let why: Vec<_> = member.change.reasons.iter().map(|reason| code(&cut(reason))).collect();
    let mut notes = entry.count().map_or(String::new(), |count| format!(" ({count})"));
    notes.push_str(if entry.is_spawned() { " (spawned)" } else { "" });
    format!(
        "| `{}` {} | {}{notes} | {} | {} |\n",
        sign(action),
        verb(action),
        code(&cut(&row.path)),
        resources.join("<br>"),
        why.join("<br>")
    )
}

/// Adds the complete data of each session, folded, while the page stays below `limit` bytes.
fn details(page: &mut String, rows: &[&Row<'_, '_>], limit: usize) {
    const LEFT_OUT: usize = 200;
    let mut left_out = 0;
    let limit = limit.saturating_sub(LEFT_OUT);
    for row in rows.iter().filter(|row| row.entry.first().session.is_some()) {
        let lines: String = text::details(row.entry, true).into_iter().map(|(_, line)| line + "\n").collect();
        let fence = "`".repeat(longest_run(&lines, '`').max(2) + 1);
        let section = format!(
            "<details>\n<summary>{}</summary>\n\n{fence}text\n{lines}{fence}\n\n</details>\n\n",
            references(&cut(&row.path)),
        );
        if page.len() + section.len() > limit {
            left_out += row.entry.members.len();
        } else {
            page.push_str(&section);
        }
    }
    if left_out > 0 {
        let _ = write!(
            page,
            "Sessions whose details do not fit into a comment: {}; `seedbed plan -v` shows them.\n\n",
            thousands(left_out)
        );
    }
}

/// Returns the value as code, on one line, inside or outside of a table.
pub(crate) fn code(value: &str) -> String {
    let value = printable(value);
    let plain = !value.is_empty() && value.trim() == value && !value.contains(['`', '|', '\\', '\t']);
    if plain { format!("`{value}`") } else { references(&value) }
}

/// Returns the value in `<code>`, without any special character of Markdown or HTML.
fn references(value: &str) -> String {
    let mut text = "<code>".to_owned();
    for c in printable(value).chars() {
        if c.is_ascii_alphanumeric() || !c.is_ascii() || " .,-/".contains(c) {
            text.push(c);
        } else {
            let _ = write!(text, "&#{};", u32::from(c));
        }
    }
    text.push_str("</code>");
    text
}

/// Cuts a value to the length that the table has room for.
fn cut(value: &str) -> String {
    if value.len() <= VALUE {
        return value.to_owned();
    }
    let head = value.floor_char_boundary(VALUE);
    format!("{}… ({} bytes)", &value[..head], thousands(value.len()))
}

fn longest_run(text: &str, wanted: char) -> usize {
    text.split(|c| c != wanted).map(str::len).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_values() {
        let check = |value: &str, expected: &str| assert_eq!(code(value), expected);
        check("lead/coder-0", "`lead/coder-0`");
        check("<b> *x* [y](z) &amp;", "`<b> *x* [y](z) &amp;`");
        check("a|b", "<code>a&#124;b</code>");
        check("`x`", "<code>&#96;x&#96;</code>");
        check("a\\", "<code>a&#92;</code>");
        check("one\ntwo", "<code>one&#92;ntwo</code>");
        check("", "<code></code>");
        check(" x ", "<code> x </code>");
        check("<script>|", "<code>&#60;script&#62;&#124;</code>");
        check("日本|", "<code>日本&#124;</code>");
    }

    #[test]
    fn long_values_are_cut_where_a_character_ends() {
        assert_eq!(cut("short"), "short");
        let long = "日".repeat(200);
        assert_eq!(cut(&long), format!("{}… (600 bytes)", "日".repeat(100)));
    }
}
