//! Subset of the template language that manifests may use, with its limits.
//!
//! A manifest may come from a stranger. The engine parses and frees expressions by recursion, and has statements,
//! functions and filters that no manifest needs. So this module first reads a template token by token. It refuses a
//! template that uses anything undocumented, or that nests deeper than a thread's stack allows.

use std::ops::Range;

use super::filters::FILTERS;
use super::problem::Problem;

/// Names of the tests, as in `{% if port is defined %}`.
pub(super) const TESTS: [&str; 12] = [
    "defined",
    "divisibleby",
    "endingwith",
    "even",
    "in",
    "mapping",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "undefined",
];

/// First words of the statements.
pub(super) const STATEMENTS: [&str; 8] = ["elif", "else", "endfor", "endif", "endraw", "for", "if", "raw"];

/// Maximum length of a template, in bytes. Text without `{{`, `{%` and `{#` is not a template, and may be longer.
pub(super) const LENGTH_MAX: usize = 64 << 10;

/// Maximum number of names, signs and values in one `{{ }}` or `{% %}`.
///
/// Each may nest the expression one level deeper, and the engine takes up to 2 KB of stack for a level (measured
/// without optimisation).
pub(super) const TOKENS_MAX: usize = 256;

/// Maximum number of `{% %}` in one template. Each `elif` nests the statement one level deeper.
pub(super) const STATEMENTS_MAX: usize = 256;

/// Checks that the engine can compile the template within the limits; the engine itself reports invalid templates.
pub(super) fn check(source: &str) -> Result<(), Problem> {
    if source.len() > LENGTH_MAX {
        let help =
            format!("a template may be {LENGTH_MAX} bytes long; text without `{{{{` and `{{%` may be longer");
        return Err(Problem::too_long(format!("the template is {} bytes long", source.len()), None, help));
    }
    let mut statements = 0;
    let mut at = 0;
    while let Some(tag) = Tag::next(source, at) {
        at = tag.end;
        if tag.is_statement {
            statements += 1;
            if statements > STATEMENTS_MAX {
                let help = format!("a template may have {STATEMENTS_MAX} statements");
                let message = "the template has too many statements".to_owned();
                return Err(Problem::too_long(message, Some(tag.open), help));
            }
        }
        tag.check(source)?;
    }
    Ok(())
}

/// One `{{ }}` or `{% %}`.
struct Tag {
    open: Range<usize>,
    is_statement: bool,
    tokens: Vec<Range<usize>>,
    end: usize,
}

impl Tag {
    /// Returns the first tag at or behind `from`, skipping comments and raw text.
    fn next(source: &str, from: usize) -> Option<Self> {
        let mut at = from;
        loop {
            let open = at + source[at..].find('{')?;
            match source.as_bytes().get(open + 1)? {
                b'#' => at = open + 2 + source[open + 2..].find("#}")? + 2,
                b'{' => return Some(Self::read(source, open, "}}")),
                b'%' => {
                    let tag = Self::read(source, open, "%}");
                    if !tag.is_word(source, 0, "raw") || tag.tokens.len() > 1 {
                        return Some(tag);
                    }
                    at = raw_end(source, tag.end)?;
                }
                _ => at = open + 1,
            }
        }
    }

    fn read(source: &str, open: usize, close: &str) -> Self {
        let bytes = source.as_bytes();
        let mut at = open + 2;
        let mut tokens = Vec::new();
        let mut open_brackets = 0_usize;
        // Sign for white space control.
        if matches!(bytes.get(at), Some(b'-' | b'+')) {
            at += 1;
        }
        while at < bytes.len() && tokens.len() <= TOKENS_MAX {
            let rest = &source[at..];
            let closes = rest.strip_prefix(['-', '+']).unwrap_or(rest).starts_with(close);
            if closes && open_brackets == 0 {
                at += rest.find(close).unwrap_or(0) + close.len();
                break;
            }
            let Some(first) = rest.chars().next() else { break };
            let length = match first {
                c if c.is_whitespace() => {
                    at += c.len_utf8();
                    continue;
                }
                quote @ ('"' | '\'') => string(rest, quote),
                c if c.is_alphanumeric() || c == '_' => {
                    rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
                }
                c => {
                    match c {
                        '(' | '[' | '{' => open_brackets += 1,
                        ')' | ']' | '}' => open_brackets = open_brackets.saturating_sub(1),
                        _ => {}
                    }
                    c.len_utf8()
                }
            };
            tokens.push(at..at + length);
            at += length;
        }
        Self { open: open..open + 2, is_statement: close == "%}", tokens, end: at }
    }

    fn token<'s>(&self, source: &'s str, at: usize) -> &'s str {
        self.tokens.get(at).map_or("", |token| &source[token.clone()])
    }

    fn is_word(&self, source: &str, at: usize, word: &str) -> bool {
        self.token(source, at) == word
    }

    fn check(&self, source: &str) -> Result<(), Problem> {
        if self.tokens.len() > TOKENS_MAX {
            let help = format!("one `{{{{ }}}}` may have {TOKENS_MAX} names, signs and values");
            let message = "the template has an expression that is too long".to_owned();
            return Err(Problem::too_long(message, Some(self.open.clone()), help));
        }
        if self.is_statement {
            let word = self.token(source, 0);
            if !STATEMENTS.contains(&word) && is_name(word) {
                return Err(Problem::unlisted("statement", word, self.tokens[0].clone(), &STATEMENTS));
            }
        }
        for (at, token) in self.tokens.iter().enumerate() {
            let word = &source[token.clone()];
            if !is_name(word) {
                continue;
            }
            let before = at.checked_sub(1).map_or("", |before| self.token(source, before));
            let is_test = before == "is"
                || before == "not" && at.checked_sub(2).is_some_and(|at| self.is_word(source, at, "is"));
            if before == "|" {
                if !FILTERS.contains(&word) {
                    return Err(Problem::unlisted("filter", word, token.clone(), &FILTERS));
                }
            } else if is_test {
                if word != "not" && !TESTS.contains(&word) {
                    return Err(Problem::unlisted("test", word, token.clone(), &TESTS));
                }
            } else if self.is_word(source, at + 1, "(") && !is_operator(word) {
                return Err(Problem::call(word, token.clone()));
            }
        }
        Ok(())
    }
}

/// Returns the end of the raw text that begins at `from`, behind its `{% endraw %}`.
fn raw_end(source: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let open = at + source[at..].find("{%")?;
        let tag = Tag::read(source, open, "%}");
        if tag.is_word(source, 0, "endraw") && tag.tokens.len() == 1 {
            return Some(tag.end);
        }
        at = open + 2;
    }
}

/// Returns the length of the string that `rest` begins with, its quotes included.
fn string(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Returns whether a bracket behind the word belongs to an expression, and is not a call.
fn is_operator(word: &str) -> bool {
    ["and", "or", "not", "in", "if", "else", "elif", "for", "is"].contains(&word)
}

#[cfg(test)]
mod tests {
    use super::check;

    #[track_caller]
    fn refused(source: &str, expected: &str, at: &str) {
        let problem = check(source).expect_err(source);
        assert_eq!((problem.message.as_str(), &source[problem.range.unwrap()]), (expected, at));
    }

    #[test]
    fn the_documented_language_is_accepted() {
        for source in [
            "{{ port.http }} {{ sessions['a/b-0'].port.http | default('x') | upper }}",
            "{% if port is defined and port.http is not divisibleby(3) %}a{% elif not (a or b) %}{% else %}{% endif %}",
            "{%- for s in [1, 2] -%}{{ loop.index }}{%- endfor -%}",
            "{# {{ range(3) }} #}{% raw %}{% include 'x' %}{{ range(2) }}{%- endraw -%}{{ a }}",
            "{{ '{{ range(3) }}' }} {{ \"\\\"}} {{ lipsum()\" }} {{ {'a': {'b': 1}}.a.b }} {{ a if (b) else (c) }}",
            "{{ unclosed 'x",
            "{{",
            "{%",
            "{# ",
            "{% raw %}{{ range(",
            "{",
        ] {
            assert!(check(source).is_ok(), "{source}");
        }
    }

    #[test]
    fn anything_else_is_refused_at_its_place() {
        refused("a {% set x = 1 %}", "`set` is not a statement of templates", "set");
        refused("{%+ include 'x' %}", "`include` is not a statement of templates", "include");
        refused("{{ a }}{{ range(9) }}", "`range` cannot be called", "range");
        refused("{{ a.b . upper () }}", "`upper` cannot be called", "upper");
        refused("{{ a | pprint }}", "`pprint` is not a filter", "pprint");
        refused("{{ '}}' | map('x') }}", "`map` is not a filter", "map");
        refused("{{ 'a\\'}}' ~ {} ~ range(1) }}", "`range` cannot be called", "range");
        refused("{% if a is callable %}", "`callable` is not a test", "callable");
        refused("{% if a is not filter('x') %}", "`filter` is not a test", "filter");
        refused("{% raw %}{% endraw %}{{ debug() }}", "`debug` cannot be called", "debug");
    }

    #[test]
    fn deeply_nested_template_is_refused() {
        refused(
            &format!("a {{{{ 1{} }}}}", "+1".repeat(50_000 / 2)),
            "the template has an expression that is too long",
            "{{",
        );
        let elifs = format!("{{% if a %}}{}{{% endif %}}", "{%elif a%}".repeat(300));
        refused(&elifs, "the template has too many statements", "{%");
        let long = check(&format!("{{{{ a }}}}{}", "x".repeat(70_000))).unwrap_err();
        assert_eq!(long.message, "the template is 70007 bytes long");
    }
}
