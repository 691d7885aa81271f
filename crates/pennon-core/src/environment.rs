//! Names of environments.

/// The name of an environment: 1 to 20 ASCII letters, digits, `-` or `_`.
///
/// Other characters are rejected because the name becomes part of a Redis key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Environment(String);

/// The text is not a valid environment name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an environment is 1 to 20 letters, digits, '-' or '_'")]
pub struct InvalidEnvironment;

impl Environment {
    const MAX_LENGTH: usize = 20;

    /// The default environment of a request.
    #[must_use]
    pub fn production() -> Self {
        Self("production".to_owned())
    }

    /// The name of the cache entry with the list of all environments. No environment can have this name, because of its
    /// dot.
    pub(crate) fn listing() -> Self {
        Self(".environments".to_owned())
    }

    /// Parses the name of an environment.
    ///
    /// # Errors
    /// [`InvalidEnvironment`] if the name is empty, longer than 20 or has another character.
    pub fn parse(text: &str) -> Result<Self, InvalidEnvironment> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > Self::MAX_LENGTH || !text.bytes().all(allowed) {
            return Err(InvalidEnvironment);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Environment {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_plain_names_are_environments() {
        for good in ["production", "eu-west_2", "A", "12345678901234567890"] {
            assert!(Environment::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "123456789012345678901",
            ".environments",
            "a b",
            "a:b",
            "a\0",
            "é",
            "{a}",
            "*",
        ] {
            assert_eq!(Environment::parse(bad), Err(InvalidEnvironment), "{bad}");
        }
    }
}
