//! What an error of PostgreSQL means for the request that met it, and for the requests after it.

use tokio_postgres::error::SqlState;

use crate::error::Error;

/// A statement that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// What the request is answered with.
    pub(super) error: Error,
    /// Whether the database itself is in trouble, so that the next request will probably fail too. Only
    /// this opens the breaker. An error about data says that PostgreSQL works, and a breaker that it
    /// opened would keep all other requests from flags that can be read.
    pub(super) is_outage: bool,
}

impl Failure {
    /// What an error of a statement means whose parameters come from a request.
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        let answer = match error.code() {
            Some(code) if is_about_input(code) => Error::invalid_form(format!(
                "The request holds a text that the database cannot keep: {}",
                reason(error)
            )),
            Some(code) if is_about_data(code) => {
                Error::Internal(format!("a statement was refused: {}", chain(error)))
            }
            Some(_) | None => unavailable(error),
        };
        Self {
            error: answer,
            is_outage: is_outage(error),
        }
    }

    /// The same for a statement whose parameters are our own. Whatever went wrong, what an instance knows
    /// from before is still the best answer.
    pub(super) fn of_snapshot(error: &tokio_postgres::Error) -> Self {
        Self {
            error: unavailable(error),
            is_outage: is_outage(error),
        }
    }
}

/// A store that cannot be reached, or does not answer in time, is an outage; nothing else here is.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let is_outage = matches!(error, Error::Unavailable(_));
        Self { error, is_outage }
    }
}

/// Whether the database is out of order. An error without a code is one of the connection.
fn is_outage(error: &tokio_postgres::Error) -> bool {
    error.code().is_none_or(|code| {
        // The connection, resources, an operator or a time limit, the system.
        ["08", "53", "57", "58"].contains(&class(code))
    })
}

/// Whether the database cannot keep a text as it was sent: a character that its encoding lacks, NUL, too
/// long for a column or for an index.
fn is_about_input(code: &SqlState) -> bool {
    [
        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        SqlState::UNTRANSLATABLE_CHARACTER,
        SqlState::STRING_DATA_RIGHT_TRUNCATION,
        SqlState::PROGRAM_LIMIT_EXCEEDED,
    ]
    .contains(code)
}

/// Whether the same statement will fail again, however often it is sent.
fn is_about_data(code: &SqlState) -> bool {
    // Cardinality, data, constraints, functions, views with a check, limits, `raise` in a trigger.
    ["21", "22", "23", "2F", "38", "39", "44", "54", "P0"].contains(&class(code))
}

fn class(code: &SqlState) -> &str {
    code.code().get(..2).unwrap_or_default()
}

/// PostgreSQL's own sentence, which names no value of a row.
fn reason(error: &tokio_postgres::Error) -> &str {
    error.as_db_error().map_or("", |error| error.message())
}

/// Maps a row that cannot be read: a defect of this code, or a change made by hand.
pub(super) fn damaged(error: &dyn std::error::Error) -> Error {
    Error::Internal(format!("a row makes no sense: {}", chain(error)))
}

pub(super) fn unavailable(error: &dyn std::error::Error) -> Error {
    Error::Unavailable(format!("database: {}", chain(error)))
}

/// An error with its causes. The messages of PostgreSQL name tables and hosts, never a password.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_errors_are_told_apart() {
        for (code, input, data) in [
            ("22021", true, true),
            ("22P05", true, true),
            ("54000", true, true),
            ("22003", false, true),
            ("23505", false, true),
            ("21000", false, true),
            ("P0001", false, true),
            ("42P01", false, false),
            ("40P01", false, false),
            ("0A000", false, false),
            ("57014", false, false),
            ("08006", false, false),
            ("53300", false, false),
        ] {
            let code = SqlState::from_code(code);
            assert_eq!(is_about_input(&code), input, "{code:?}");
            assert_eq!(is_about_data(&code), data, "{code:?}");
        }
    }
}
