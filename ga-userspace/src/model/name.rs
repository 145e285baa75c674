//! Names of instances, listeners and groups.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::NameRule;

/// A name that obeys the rule it was parsed under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Too short or too long.
    #[error("a name has {min} to {max} characters, this one has {len}")]
    Length {
        /// Characters found.
        len: usize,
        /// Fewest allowed.
        min: usize,
        /// Most allowed.
        max: usize,
    },
    /// Does not start with a letter.
    #[error("a name starts with a letter, not with {0:?}")]
    Start(char),
    /// A character that is not allowed.
    #[error("{0:?} is not allowed in a name")]
    Character(char),
}

impl Name {
    /// Parses `text` under `rule`: 2–128 characters, letters, digits, `_`, `-`, first a letter; `extended` allows 1 character and `.`.
    pub fn parse(text: &str, rule: NameRule) -> Result<Self, NameError> {
        let (min, extra) = match rule {
            NameRule::Seed => (2, None),
            NameRule::Extended => (1, Some('.')),
        };
        let (len, max) = (text.chars().count(), 128);
        if !(min..=max).contains(&len) {
            return Err(NameError::Length { len, min, max });
        }
        for (index, c) in text.chars().enumerate() {
            if index == 0 && !c.is_ascii_alphabetic() {
                return Err(NameError::Start(c));
            }
            if !(c.is_ascii_alphanumeric() || c == '_' || c == '-' || Some(c) == extra) {
                return Err(NameError::Character(c));
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // The extended rule allows every name that any rule allows.
        Self::parse(&text, NameRule::Extended)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
