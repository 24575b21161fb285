//! Conditions for which `apply`, `run` and `start` wait: templates in a manifest, rendered in a plan. Pure.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::CommandLine;

/// Pattern of `within` in a manifest.
pub(super) const WITHIN_PATTERN: &str = "^[1-9][0-9]{0,4}(ms|s|m)$";

/// Condition under which a session is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Ready {
    /// Observation that shows that the session is ready.
    pub probe: Probe,
    /// Time after which the wait fails.
    pub within: Within,
    /// Commands that the session is ready after: absent in a manifest without the key, never in a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<After>,
}

/// Observation that shows that a session is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Probe {
    /// A process listens on a port of the session (TCP).
    Port {
        /// Name of the port.
        name: String,
        /// Number of the port; 0 in a manifest.
        number: u16,
    },
    /// A command exits with code 0 in the session's directory, with its environment.
    Command(CommandLine),
}

/// Commands after which a session is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ready-after")]
#[expect(clippy::exhaustive_enums, reason = "a session has no other commands that bring it up")]
pub enum After {
    /// The commands of `setup`: `apply` waits, and so does everything that applies.
    Setup,
    /// The session's `command`: `start` waits.
    Command,
}

impl Ready {
    /// Returns the key of a manifest's table that has the probe.
    pub(crate) fn probe_key(&self) -> &'static str {
        match self.probe {
            Probe::Port { .. } => "port",
            Probe::Command(_) => "command",
        }
    }

    /// Returns the name of the port, if the condition is one of a port.
    pub(crate) fn port_name(&self) -> Option<&str> {
        match &self.probe {
            Probe::Port { name, .. } => Some(name),
            Probe::Command(_) => None,
        }
    }

    /// Sets the number of the port, if the condition is one of a port.
    pub(crate) fn set_port(&mut self, of_plan: u16) {
        if let Probe::Port { number, .. } = &mut self.probe {
            *number = of_plan;
        }
    }

    /// Returns the condition in the form of a manifest.
    pub(crate) fn to_table(&self) -> Value {
        let probe = match &self.probe {
            Probe::Port { name, .. } => name.as_str().into(),
            Probe::Command(CommandLine::Shell(line)) => line.as_str().into(),
            Probe::Command(CommandLine::Arguments(arguments)) => arguments.clone().into(),
        };
        let mut table = Map::from_iter([
            (self.probe_key().to_owned(), probe),
            ("within".to_owned(), self.within.to_string().into()),
        ]);
        if let Some(after) = self.after {
            table.insert("after".to_owned(), after.to_string().into());
        }
        table.into()
    }
}

impl fmt::Display for Ready {
    /// Writes the condition without its time: `port http (20000)`, or the command in backticks.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.probe {
            Probe::Port { name, number: 0 } => write!(formatter, "port {name}"),
            Probe::Port { name, number } => write!(formatter, "port {name} ({number})"),
            Probe::Command(CommandLine::Shell(line)) => write!(formatter, "`{line}`"),
            Probe::Command(CommandLine::Arguments(words)) => write!(formatter, "`{}`", words.join(" ")),
        }
    }
}

impl fmt::Display for After {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Setup => "setup",
            Self::Command => "command",
        })
    }
}

/// Length of a wait: a number from 1 to 99999 and `ms`, `s` or `m`. Default: `30s`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Within {
    number: u32,
    /// Position in [`UNITS`].
    unit: usize,
}

/// Units of a [`Within`], with their milliseconds.
const UNITS: [(&str, u64); 3] = [("ms", 1), ("s", 1_000), ("m", 60_000)];

/// Text that is no [`Within`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no length of a wait: write a number and `ms`, `s` or `m`, such as `30s`", .0.escape_default())]
pub struct NoWithin(String);

impl Within {
    /// Returns the length of the wait.
    pub fn duration(&self) -> Duration {
        Duration::from_millis(u64::from(self.number) * UNITS[self.unit].1)
    }
}

impl Default for Within {
    fn default() -> Self {
        Self { number: 30, unit: 1 }
    }
}

impl TryFrom<String> for Within {
    type Error = NoWithin;

    fn try_from(text: String) -> Result<Self, NoWithin> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = UNITS.iter().position(|(name, _)| *name == unit);
        let is_number = (1..=5).contains(&digits) && !number.starts_with('0');
        let number = number.parse().ok().filter(|_| is_number);
        match number.zip(unit) {
            Some((number, unit)) => Ok(Self { number, unit }),
            None => Err(NoWithin(text)),
        }
    }
}

impl From<Within> for String {
    fn from(within: Within) -> Self {
        within.to_string()
    }
}

impl fmt::Display for Within {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.number, UNITS[self.unit].0)
    }
}

impl JsonSchema for Within {
    fn schema_name() -> Cow<'static, str> {
        "Within".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Length of a wait: a number from 1 to 99999 and `ms`, `s` or `m`.",
            "pattern": WITHIN_PATTERN,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Within;

    #[test]
    fn wait_is_a_number_and_a_unit() {
        let milliseconds =
            |text: &str| Within::try_from(text.to_owned()).ok().map(|within| within.duration().as_millis());
        for (text, expected) in
            [("500ms", 500), ("30s", 30_000), ("2m", 120_000), ("99999m", 5_999_940_000), ("1ms", 1)]
        {
            assert_eq!(milliseconds(text), Some(expected), "{text}");
            assert_eq!(Within::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        for text in ["", "s", "0s", "03s", "100000s", "3", "3h", "3 s", "+3s", "3s ", "s3", "3é", "never"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
        assert_eq!(Within::default().to_string(), "30s");
    }
}
