//! Diagnostics as workflow commands of GitHub Actions: `::error file=..,line=..::message`.

use std::fmt::Write as _;

use super::Report;

/// Returns one line per diagnostic.
pub(super) fn annotations(report: &Report) -> String {
    let file = property(report.file_name());
    report.diagnostics().fold(String::new(), |mut out, diagnostic| {
        let mut message = format!("{}: {}", diagnostic.message, diagnostic.label);
        if let Some(help) = &diagnostic.help {
            let _ = write!(message, "\n{help}");
        }
        if let Some(argument) = &diagnostic.argument {
            message = format!("--set {argument}: {message}");
            let title = property(&format!("seedbed: {}", diagnostic.rule));
            let _ = writeln!(out, "::error title={title}::{}", data(&message));
            return out;
        }
        let _ = writeln!(
            out,
            "::error file={file},line={},endLine={},col={},endColumn={},title={}::{}",
            diagnostic.line,
            diagnostic.end_line,
            diagnostic.column,
            // If a key is missing, the span is empty; an annotation requires at least one column.
            diagnostic.end_column.max(diagnostic.column + 1),
            property(&format!("seedbed: {}", diagnostic.rule)),
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
    use super::super::super::diagnostic::{Diagnostic, Location};
    use super::super::super::rule;
    use super::Report;

    #[test]
    fn separators_of_properties_and_lines_are_escaped() {
        let location = Location::default().key("k");
        let diagnostic =
            Diagnostic::new(rule::SYNTAX, location, "100% wrong: a, b", "so\r\nit is").with_help("do::this");
        let report = Report::new("a,b:c%.toml", "\n  k = 'ü'\n", vec![diagnostic]);
        assert_eq!(
            report.github(),
            "::error file=a%2Cb%3Ac%25.toml,line=2,endLine=2,col=7,endColumn=10,title=seedbed%3A syntax::100%25 wrong: \
             a, b: so%0D%0Ait is%0Ado::this\n"
        );
    }
}
