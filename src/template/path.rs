//! Finder of the paths in a template: `port.http`, `sessions['lead/coder-0'].port.primary`, each with its position.

use std::ops::Range;

use minijinja::Value;

/// Name with its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// Range from the first byte to the last.
    pub(super) range: Range<usize>,
    /// Segments, at least one.
    pub(super) segments: Vec<Segment>,
    /// `true` if the named value may be missing: a filter or test handles a missing value.
    pub(super) may_be_missing: bool,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Name without quotes; for an index its digits.
    pub(super) name: String,
    /// Position of the name, without dot, brackets and quotes.
    pub(super) range: Range<usize>,
    /// `true` if the segment is an index of an array.
    is_index: bool,
}

/// Returns the first step of a path that does not exist, and the value that lacks this step.
pub(super) fn lost(path: &Path, names: &Value) -> Option<(usize, Value)> {
    let mut value = names.clone();
    for (at, segment) in path.segments.iter().enumerate() {
        let found = match segment.name.parse() {
            Ok(index) if segment.is_index => value.get_item_by_index(index),
            _ => value.get_attr(&segment.name),
        };
        match found {
            Ok(found) if !found.is_undefined() => value = found,
            _ => return Some((at, value)),
        }
    }
    None
}

/// Keywords of the language, which name no value.
const KEYWORDS: [&str; 30] = [
    "and",
    "block",
    "call",
    "do",
    "elif",
    "else",
    "endblock",
    "endcall",
    "endfilter",
    "endfor",
    "endif",
    "endmacro",
    "endset",
    "endwith",
    "extends",
    "false",
    "filter",
    "for",
    "from",
    "if",
    "import",
    "in",
    "include",
    "is",
    "macro",
    "none",
    "not",
    "or",
    "set",
    "true",
];

/// Returns every path of the template's `{{ .. }}` and `{% .. %}`, in order.
pub(super) fn paths(source: &str) -> Vec<Path> {
    let mut paths = Vec::new();
    let mut at = 0;
    while let Some(open) = source[at..].find('{').map(|open| at + open) {
        let close = match source[open..].get(..2) {
            Some("{{") => "}}",
            Some("{%") => "%}",
            Some("{#") => "#}",
            _ => {
                at = open + 1;
                continue;
            }
        };
        let mut scanner = Scanner { source, at: open + 2 };
        while !scanner.rest().starts_with(close) && !scanner.rest().is_empty() {
            if close == "#}" {
                scanner.skip();
            } else {
                paths.extend(scanner.path());
            }
        }
        at = (scanner.at + 2).min(source.len());
    }
    paths
}

struct Scanner<'s> {
    source: &'s str,
    at: usize,
}

impl<'s> Scanner<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip(&mut self) {
        self.at += self.peek().map_or(0, char::len_utf8);
    }

    /// Returns the path that begins here; without a path, skips the token that begins here.
    fn path(&mut self) -> Option<Path> {
        match self.peek()? {
            quote @ ('"' | '\'') => {
                self.string(quote);
                None
            }
            c if is_start(c) => {
                let start = self.at;
                let first = self.word();
                let before = self.source[..start].trim_end();
                let is_of_the_language =
                    before.ends_with('|') || before.ends_with(" is") || before.ends_with('.');
                if is_of_the_language || KEYWORDS.contains(&first.name.as_str()) {
                    return None;
                }
                let mut segments = vec![first];
                while let Some(next) = self.step() {
                    segments.push(next);
                }
                // A call, or the name of an argument.
                let after = self.rest().trim_start();
                if after.starts_with('(') || after.starts_with('=') && !after.starts_with("==") {
                    return None;
                }
                let filter = after.strip_prefix('|').map(str::trim_start);
                let may_be_missing = after.starts_with("is ") || filter.is_some_and(|f| f.starts_with('d'));
                Some(Path { range: start..self.at, segments, may_be_missing })
            }
            c if c.is_ascii_digit() => {
                self.word();
                None
            }
            _ => {
                self.skip();
                None
            }
        }
    }

    /// Returns `.name`, `['name']` or `[0]`, if it comes next.
    fn step(&mut self) -> Option<Segment> {
        let begun = self.at;
        let step = match self.peek()? {
            '.' => {
                self.skip();
                self.peek().filter(|c| is_start(*c) || c.is_ascii_digit()).map(|_| self.word())
            }
            '[' => {
                self.skip();
                let inner = match self.peek()? {
                    quote @ ('"' | '\'') => self.string(quote),
                    c if c.is_ascii_digit() => Some(Segment { is_index: true, ..self.word() }),
                    _ => None,
                };
                let closed = self.peek() == Some(']');
                self.skip();
                inner.filter(|_| closed)
            }
            _ => None,
        };
        if step.is_none() {
            self.at = begun;
        }
        step
    }

    fn word(&mut self) -> Segment {
        let length = self.rest().find(|c| !is_start(c) && !c.is_ascii_digit()).unwrap_or(self.rest().len());
        let range = self.at..self.at + length;
        self.at = range.end;
        Segment { name: self.source[range.clone()].to_owned(), range, is_index: false }
    }

    fn string(&mut self, quote: char) -> Option<Segment> {
        self.skip();
        let start = self.at;
        let length = self.rest().find(quote);
        self.at = length.map_or(self.source.len(), |length| start + length + 1);
        let range = start..start + length?;
        Some(Segment { name: self.source[range.clone()].to_owned(), range, is_index: false })
    }
}

fn is_start(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::paths;

    fn check(source: &str, expected: &[&[&str]]) {
        let found = paths(source);
        let names: Vec<Vec<&str>> = found
            .iter()
            .map(|path| path.segments.iter().map(|segment| segment.name.as_str()).collect())
            .collect();
        assert_eq!(names, expected, "{source}");
        for segment in found.iter().flat_map(|path| &path.segments) {
            assert_eq!(source[segment.range.clone()], segment.name);
        }
    }

    #[test]
    fn paths_are_found_where_expressions_are() {
        check("port.http {port.http} {{ port.http }}", &[&["port", "http"]]);
        check("{{ sessions['a/b-0'].port[\"x\"][1] }}", &[&["sessions", "a/b-0", "port", "x", "1"]]);
        check("{{ a.b }}{# c.d #}{{e}}", &[&["a", "b"], &["e"]]);
        check("{% if a.b and not c %}{% endif %}", &[&["a", "b"], &["c"]]);
        check("{{ a.b | upper ~ 'c.d' ~ 12 ~ e }}", &[&["a", "b"], &["e"]]);
        check("{{ range(3) ~ dict(x=y.z) }}", &[&["y", "z"]]);
        check("{{ unclosed.path", &[&["unclosed", "path"]]);
        check("{{ ü.日 }} {", &[&["ü", "日"]]);
        check("{{ a[ }} {{ b['x }}", &[&["a"], &["b"]]);
    }

    #[test]
    fn possibly_missing_value_is_reported() {
        let missing = |source: &str| paths(source)[0].may_be_missing;
        assert!(missing("{{ a.b | default('x') }}") && missing("{% if a.b is defined %}{% endif %}"));
        assert!(!missing("{{ a.b | upper }}"));
    }
}
