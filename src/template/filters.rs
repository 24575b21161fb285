//! Filters that templates may use.

/// Names of the filters, as listed in the documentation.
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
