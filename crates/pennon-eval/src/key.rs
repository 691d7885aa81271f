//! Flag keys and user ids, checked once when they are parsed.

use serde::{Deserialize, Serialize};

/// The key of a flag: any text that is not empty and that PostgreSQL can store (no NUL).
///
/// The existing service accepted every text, so a key in a request for a lookup is not restricted further.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FlagKey(String);

/// The text is not a valid flag key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a flag key must not be empty or contain a NUL character")]
pub struct InvalidFlagKey;

impl FlagKey {
    /// Parses a flag key.
    ///
    /// # Errors
    /// [`InvalidFlagKey`] if the text is empty or contains a NUL character.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidFlagKey> {
        let text = text.into();
        if text.is_empty() || text.contains('\0') {
            return Err(InvalidFlagKey);
        }
        Ok(Self(text))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for FlagKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for FlagKey {
    type Error = InvalidFlagKey;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(text)
    }
}

impl From<FlagKey> for String {
    fn from(key: FlagKey) -> Self {
        key.0
    }
}

impl std::borrow::Borrow<str> for FlagKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A user id, which is the targeting key of a caller. Never empty, compared byte by byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(String);

impl UserId {
    /// Parses a user id. `None` for an empty text.
    #[must_use]
    pub fn parse(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        (!text.is_empty()).then_some(Self(text))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_any_text_that_is_not_empty_and_has_no_nul() {
        for good in ["a", "__rev", "with space", "käse/😀", "a:b"] {
            assert_eq!(FlagKey::parse(good).map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "\0", "a\0b"] {
            assert_eq!(FlagKey::parse(bad), Err(InvalidFlagKey));
        }
    }

    #[test]
    fn an_empty_user_id_counts_as_absent() {
        assert_eq!(UserId::parse(""), None);
        assert_eq!(UserId::parse(" ").map(|id| id.0), Some(" ".to_owned()));
    }
}
