//! Ranges of numbered names.

/// Returns a name without its final number; `None` if the name has no final number.
pub(crate) fn stem(name: &str) -> Option<&str> {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem.len() < name.len() && !stem.is_empty()).then_some(stem)
}

/// Returns names of one stem as ranges of their numbers, in any order of input: `coder-0 … coder-9, coder-12`.
///
/// Other names are represented by the first and the last.
pub(crate) fn range<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    let numbered = |name: &&'n str| {
        let stem = stem(name)?;
        let digits = &name[stem.len()..];
        let number: u64 = digits.parse().ok()?;
        // `coder-007` is not the seventh after `coder-0`.
        (number.to_string() == digits).then_some((stem, number))
    };
    let numbers: Option<Vec<(&str, u64)>> = names.iter().map(numbered).collect();
    match numbers {
        Some(mut numbers) if numbers.len() > 1 && numbers.iter().all(|(stem, _)| *stem == numbers[0].0) => {
            numbers.sort_unstable();
            let stem = numbers[0].0;
            let runs = numbers.chunk_by(|(_, one), (_, next)| one + 1 == *next);
            let mut runs: Vec<String> = runs
                .map(|run| match run {
                    [(_, one)] => format!("{stem}{one}"),
                    [(_, first), .., (_, last)] => format!("{stem}{first} … {stem}{last}"),
                    [] => String::new(),
                })
                .collect();
            if runs.len() > 4 {
                runs.splice(2..runs.len() - 1, ["…".to_owned()]);
            }
            runs.join(", ")
        }
        _ => match &names[..] {
            [] => String::new(),
            [one] => (*one).to_owned(),
            [first, .., last] => format!("{first} … {last}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges_of_names() {
        let check = |names: &[&str], expected: &str| assert_eq!(range(names.iter().copied()), expected);
        check(&["coder-0"], "coder-0");
        check(&["coder-0", "coder-1", "coder-10", "coder-2"], "coder-0 … coder-2, coder-10");
        check(&["a1", "a2", "b3"], "a1 … b3");
        check(&["a-01", "a-02"], "a-01 … a-02");
        check(&["alpha", "beta", "zeta"], "alpha … zeta");
        check(&["7", "8"], "7 … 8");
        check(&["a1", "a3", "a5", "a7", "a9"], "a1, a3, …, a9");
        check(&["a99999999999999999999", "a2"], "a99999999999999999999 … a2");
    }
}
