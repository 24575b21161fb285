//! Names that somebody may have meant.

/// How alike two names must be, from 0 to 1, for one to be offered in place of the other: two slips in five letters
/// pass, two in four do not.
const PLAUSIBLE: f64 = 0.55;
/// More than this is no help.
const MOST: usize = 3;

/// The names most like `wanted`, nearest first, at most three.
///
/// Names are compared part by part, from the end, and are as alike as the parts that differ most: `web` is like
/// `apps/web`, and a long way that two paths have in common makes them no more alike. Case does not count.
pub(super) fn near<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let wanted: Vec<&str> = wanted.split('/').rev().collect();
    let mut alike: Vec<(f64, usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let parts: Vec<&str> = lower.split('/').rev().collect();
            let likeness = wanted.iter().zip(&parts).map(|(a, b)| likeness(a, b)).fold(1.0, f64::min);
            (likeness >= PLAUSIBLE).then_some((likeness, wanted.len().abs_diff(parts.len()), name))
        })
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (a.1, a.2).cmp(&(b.1, b.2))));
    alike.dedup();
    alike.into_iter().take(MOST).map(|(_, _, name)| name.to_owned()).collect()
}

fn likeness(a: &str, b: &str) -> f64 {
    // Much cheaper than the distance, and lengths this far apart decide it: repositories have many names.
    if a.len().max(b.len()) > 8 * a.len().min(b.len()) {
        return 0.0;
    }
    strsim::normalized_damerau_levenshtein(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plausible_names_only_nearest_first() {
        let names =
            ["main", "maint", "origin/main", "feature/login", "release-1", "v1.0", "v2.0", "apps/web"];
        let check = |wanted, expected: &[&str]| assert_eq!(near(wanted, names), expected, "{wanted}");
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
    }

    #[test]
    fn the_same_name_is_offered_once() {
        assert_eq!(near("mai", ["main", "main"]), ["main"]);
    }
}
