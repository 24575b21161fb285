//! Filters that templates may use.

/// Filters, as the documentation lists them.
pub(super) const FILTERS: [&str; 20] = [
    "abs",
    "capitalize",
    "default",
    "first",
    "float",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lower",
    "replace",
    "reverse",
    "round",
    "sort",
    "split",
    "title",
    "trim",
    "unique",
    "upper",
];
