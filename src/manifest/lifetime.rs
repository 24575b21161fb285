//! Lifetimes of sessions, such as `3d`. Pure.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Pattern of `expires` in a manifest. `never` stands for no lifetime.
pub(super) const EXPIRES_PATTERN: &str = "^([1-9][0-9]{0,3}[mhdw]|never)$";

/// Time after which a session has expired: a number from 1 to 9999 and a unit, `m`, `h`, `d` or `w`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lifetime {
    number: u16,
    unit: char,
}

/// Text that is no [`Lifetime`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no lifetime: write a number and `m`, `h`, `d` or `w`, such as `3d`", .0.escape_default())]
pub struct NoLifetime(String);

impl Lifetime {
    /// Returns the number of seconds.
    pub fn seconds(&self) -> u64 {
        let unit = match self.unit {
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            _ => 7 * 24 * 60 * 60,
        };
        u64::from(self.number) * unit
    }
}

impl TryFrom<String> for Lifetime {
    type Error = NoLifetime;

    fn try_from(text: String) -> Result<Self, NoLifetime> {
        let parsed = || {
            let unit = text.chars().last().filter(|unit| "mhdw".contains(*unit))?;
            let number = &text[..text.len() - 1];
            let is_number = number.len() <= 4 && number.bytes().all(|digit| digit.is_ascii_digit());
            let number = number.parse().ok().filter(|_| is_number && !number.starts_with('0'))?;
            Some(Self { number, unit })
        };
        parsed().ok_or_else(|| NoLifetime(text.clone()))
    }
}

impl From<Lifetime> for String {
    fn from(lifetime: Lifetime) -> Self {
        lifetime.to_string()
    }
}

impl std::fmt::Display for Lifetime {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}{}", self.number, self.unit)
    }
}

impl JsonSchema for Lifetime {
    fn schema_name() -> Cow<'static, str> {
        "Lifetime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Length of time: a number from 1 to 9999 and `m`, `h`, `d` or `w`.",
            "pattern": "^[1-9][0-9]{0,3}[mhdw]$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Lifetime;

    #[test]
    fn lifetime_is_a_number_and_a_unit() {
        let seconds =
            |text: &str| Lifetime::try_from(text.to_owned()).ok().map(|lifetime| lifetime.seconds());
        for (text, expected) in [("90m", 5_400), ("12h", 43_200), ("3d", 259_200), ("9999w", 6_047_395_200)] {
            assert_eq!(seconds(text), Some(expected), "{text}");
            assert_eq!(Lifetime::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        for text in ["", "d", "0d", "03d", "10000d", "3", "3s", "3 d", "+3d", "3d ", "d3", "3é", "never"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
