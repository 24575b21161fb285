//! Diagnostics as workflow commands of GitHub Actions: `::error file=..,line=..::message`.

use std::fmt::Write as _;

use super::Report;

/// Returns one line per diagnostic.
pub(super) fn annotations(report: &Report) -> String {
    let file = property(report.file_name());
    report.faults().fold(String::new(), |mut out, fault| {
        let mut message = format!("{}: {}", fault.message, fault.label);
        if let Some(help) = &fault.help {
            let _ = write!(message, "\n{help}");
        }
        let _ = writeln!(
            out,
            "::error file={file},line={},endLine={},col={},endColumn={},title={}::{}",
            fault.line,
            fault.end_line,
            fault.column,
            // If a key is missing, the span is empty; an annotation requires at least one column.
            fault.end_column.max(fault.column + 1),
            property(&format!("seedbed: {}", fault.rule)),
            data(&message),
        );
        out
    })
}

/// Escapes a message: one line, and no `%` that is not an escape.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes a property, which `,` and `:` would end.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::super::super::fault::{Fault, Place};
    use super::super::super::rule;
    use super::Report;

    #[test]
    fn what_ends_a_property_or_a_line_is_escaped() {
        let place = Place::default().key("k");
        let fault = Fault::new(rule::SYNTAX, place, "100% wrong: a, b", "so\r\nit is").with_help("do::this");
        let report = Report::new("a,b:c%.toml", "\n  k = 'ü'\n", vec![fault]);
        assert_eq!(
            report.github(),
            "::error file=a%2Cb%3Ac%25.toml,line=2,endLine=2,col=7,endColumn=10,title=seedbed%3A syntax::100%25 wrong: \
             a, b: so%0D%0Ait is%0Ado::this\n"
        );
    }
}
