//! What the key and the texts of a flag may be, whichever way they come: by a route of their own, or in
//! a file. What is there from before these rules stays as it is.

use pennon_eval::FlagKey;

/// The longest key of a new flag, in characters. PostgreSQL's index takes no more than 2700 bytes, and
/// four bytes are the most that a character has.
const LONGEST_KEY: usize = 255;
/// The longest description, in characters.
const LONGEST_DESCRIPTION: usize = 500;
/// The longest salt, in characters: it only has to differ from others.
const LONGEST_SALT: usize = 100;
/// What a path would mean something else by: the report of stale flags, and what clients resolve before
/// they send it.
const OTHER_PATHS: [&str; 3] = ["stale", ".", ".."];

/// Takes a text as the key of a flag that is not there yet.
///
/// # Errors
/// A sentence about what is wrong with it.
pub fn new_key(text: &str) -> Result<FlagKey, &'static str> {
    if !(1..=LONGEST_KEY).contains(&text.chars().count()) {
        return Err("Must have 1 to 255 characters");
    }
    if text.chars().any(char::is_control) {
        return Err("Must not hold control characters");
    }
    if OTHER_PATHS.contains(&text) {
        return Err("Must not be stale, . or .., which mean something else in a path");
    }
    FlagKey::parse(text).map_err(|_| "Must not be empty")
}

/// Checks a description.
///
/// # Errors
/// A sentence about what is wrong with it.
pub fn check_description(text: &str) -> Result<(), &'static str> {
    if text.chars().count() > LONGEST_DESCRIPTION {
        return Err("Must be at most 500 characters");
    }
    no_nul(text)
}

/// Checks a salt.
///
/// # Errors
/// A sentence about what is wrong with it.
pub fn check_salt(text: &str) -> Result<(), &'static str> {
    if !(1..=LONGEST_SALT).contains(&text.chars().count()) {
        return Err("Must have 1 to 100 characters");
    }
    no_nul(text)
}

/// PostgreSQL keeps every character but this one.
fn no_nul(text: &str) -> Result<(), &'static str> {
    if text.contains('\0') {
        return Err("Must not hold a NUL character");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_measured_in_characters() {
        assert!(new_key(&"😀".repeat(255)).is_ok());
        assert!(check_description(&"ä".repeat(500)).is_ok());
        assert!(check_salt(&"ä".repeat(100)).is_ok());
        assert!(check_description("").is_ok());
        for bad in ["", &"k".repeat(256), "a\u{7f}", "\0", "stale", ".", ".."] {
            assert!(new_key(bad).is_err(), "{bad:?}");
        }
        for good in ["Stale", "stale.", "...", " ", "a/b"] {
            assert!(new_key(good).is_ok(), "{good:?}");
        }
        for bad in ["", &"s".repeat(101), "a\0"] {
            assert!(check_salt(bad).is_err(), "{bad:?}");
        }
    }
}
