//! Suggestions for mistyped names.

/// Minimum similarity, from 0 to 1, of a suggested name: two typing mistakes in five letters pass, two in four do not.
const PLAUSIBLE: f64 = 0.55;

/// Maximum number of suggested names.
const OFFERED_MAX: usize = 3;

/// Number of characters of a name that are compared.
const COMPARED_MAX: usize = 255;

/// Returns the names most similar to `wanted`, the most similar first, at most three.
///
/// Names are compared part by part from the end, and are as similar as the parts that differ most. `web` is similar to
/// `apps/web`, and long common directories do not make two paths more similar. Case is ignored, and so is the joining
/// of words by `-`, `_` or capitals.
///
/// If no name is similar, and `wanted` has only one part and begins with exactly one name, that name is returned.
///
/// The similarity of two parts is derived from their Damerau-Levenshtein distance, divided by the length of the longer
/// part.
pub fn similar<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = kebab(wanted);
    let wanted_parts: Vec<&str> = wanted.split('/').rev().collect();
    let mut similar: Vec<(f64, usize, &str)> = Vec::new();
    let mut begins: Vec<&str> = Vec::new();
    for name in names {
        let compared = kebab(name);
        let parts: Vec<&str> = compared.split('/').rev().collect();
        let likeness = wanted_parts.iter().zip(&parts).map(|(a, b)| likeness(a, b)).fold(1.0, f64::min);
        if likeness >= PLAUSIBLE {
            similar.push((likeness, wanted_parts.len().abs_diff(parts.len()), name));
        } else if compared.len() > 2 && wanted_parts.len() == 1 && wanted.starts_with(&compared) {
            begins.push(name);
        }
    }
    if similar.is_empty() && begins.len() == 1 {
        return begins;
    }
    similar.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (a.1, a.2).cmp(&(b.1, b.2))));
    similar.dedup();
    similar.into_iter().take(OFFERED_MAX).map(|(_, _, name)| name).collect()
}

/// Returns the first of [`similar`].
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    similar(wanted, names).first().copied()
}

/// Converts `baseRef` and `base_ref` to `base-ref`.
fn kebab(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 2);
    let mut after_lower = false;
    for c in name.chars().take(COMPARED_MAX) {
        if c.is_ascii_uppercase() && after_lower {
            out.push('-');
        }
        after_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        if c == '_' {
            out.push('-');
        } else {
            out.extend(c.to_lowercase());
        }
    }
    out
}

fn likeness(a: &str, b: &str) -> f64 {
    // Lengths this far apart decide without the much more expensive distance: repositories have many names.
    if a.len().max(b.len()) > 8 * a.len().min(b.len()) {
        return 0.0;
    }
    strsim::normalized_damerau_levenshtein(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plausible_names_are_offered_the_most_similar_first() {
        let names =
            ["main", "maint", "origin/main", "feature/login", "release-1", "v1.0", "v2.0", "apps/web"];
        let check =
            |wanted: &str, expected: &[&str]| assert_eq!(similar(wanted, names), expected, "{wanted}");
        check("mian", &["main", "origin/main", "maint"]);
        check("MAIN", &["main", "origin/main", "maint"]);
        check("feature/logn", &["feature/login"]);
        check("login", &["feature/login"]);
        check("web", &["apps/web"]);
        check("upstream/main", &["main", "maint"]);
        check("feat/login", &["feature/login"]);
        check("feature/other", &[]);
        check("v1.1", &["v1.0"]);
        check("release-2", &["release-1"]);
        check("develop", &[]);
        check("", &[]);
        check(&"x".repeat(9), &[]);
        assert_eq!(similar("mai", ["main", "main"]), ["main"], "one name is offered once");
    }

    #[test]
    fn other_ways_to_join_words_are_no_mistake() {
        let keys = ["base-ref", "block-size", "child", "env"];
        let check = |wanted, expected| assert_eq!(nearest(wanted, keys), expected, "{wanted}");
        check("baseRef", Some("base-ref"));
        check("BASE_REF", Some("base-ref"));
        check("children", Some("child"));
        check("environment", Some("env"));
        check("resources", None);
    }
}
