//! Classifies errors of PostgreSQL: how to respond to the request, and whether later requests will fail too.

use std::io::ErrorKind;

use tokio_postgres::error::SqlState;

use crate::error::Error;

/// A statement that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// The error of the request.
    pub(super) error: Error,
    /// Whether the database itself fails, so that the next request will probably fail too. Only such errors open the
    /// breaker. An error about data shows that PostgreSQL works; if it opened the breaker, one bad row would make all
    /// flags unavailable.
    pub(super) is_outage: bool,
}

/// Why a statement of a transaction failed.
pub(super) enum StatementError {
    /// A constraint was violated (class 23).
    Constraint(SqlState),
    /// Another failure.
    Other(Error),
}

impl Failure {
    /// Classifies the error of any statement except the read of a snapshot.
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        let answer = match error.code() {
            Some(code) if is_about_input(code) => Error::invalid_form(format!(
                "The request contains a text that the database cannot store: {}",
                reason(error)
            )),
            Some(code) if is_about_data(code) => {
                Error::Internal(format!("statement failed: {}", chain(error)))
            }
            Some(_) | None => unavailable(error),
        };
        Self {
            error: answer,
            is_outage: is_outage(error),
        }
    }

    /// Classifies the error of the read of a snapshot. It is always [`Error::Unavailable`], so that the instance
    /// answers with the snapshot that it has.
    pub(super) fn of_snapshot(error: &tokio_postgres::Error) -> Self {
        Self {
            error: unavailable(error),
            is_outage: is_outage(error),
        }
    }
}

/// Converts an error; an unreachable store or a timeout is an outage.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let is_outage = matches!(error, Error::Unavailable(_));
        Self { error, is_outage }
    }
}

/// Whether the database itself fails. An error without a code counts as a connection error.
fn is_outage(error: &tokio_postgres::Error) -> bool {
    error.code().is_none_or(|code| {
        // The connection, resources, an operator or a time limit, the system.
        ["08", "53", "57", "58"].contains(&class(code))
    })
}

/// Whether the database cannot store a text: because of NUL or a character that its encoding lacks, or because it is
/// too long for a column or an index.
fn is_about_input(code: &SqlState) -> bool {
    [
        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        SqlState::UNTRANSLATABLE_CHARACTER,
        SqlState::STRING_DATA_RIGHT_TRUNCATION,
        SqlState::PROGRAM_LIMIT_EXCEEDED,
    ]
    .contains(code)
}

/// Whether the error is about the data of the request or of a row, so that the response is not 503. A missing table or
/// column (class 42) is 503: functions are deployed before the migration that adds it.
fn is_about_data(code: &SqlState) -> bool {
    // Cardinality, data, constraints, functions, views with a check, limits, `raise` in a trigger.
    ["21", "22", "23", "2F", "38", "39", "44", "54", "P0"].contains(&class(code))
}

fn class(code: &SqlState) -> &str {
    code.code().get(..2).unwrap_or_default()
}

/// The message of PostgreSQL, which contains no value of a row.
fn reason(error: &tokio_postgres::Error) -> &str {
    error.as_db_error().map_or("", |error| error.message())
}

/// Converts the error of an unreadable row: a defect of this code, or a change made by SQL.
pub(super) fn unreadable(error: &dyn std::error::Error) -> Error {
    Error::Internal(format!("unreadable row: {}", chain(error)))
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

/// Whether the server, or a pooler in front of it, rejects the user or the password.
pub(super) fn is_about_login(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| {
        let (code, message) = (error.code(), error.message());
        [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        ]
        .contains(code)
            // PgBouncer has one code for all its errors.
            || *code == SqlState::PROTOCOL_VIOLATION
                && (message.starts_with("no such user")
                    || message.ends_with("authentication failed"))
    })
}

/// Whether the server accepts no connection now. It, or a pooler in front of it, has none left (class 53), is starting
/// or shutting down (class 57), or the pooler cannot reach the server (class 08). Or the connection was refused, or lost
/// while it was being established, as during a restart or a failover.
pub(super) fn is_temporary(error: &tokio_postgres::Error) -> bool {
    if let Some(code) = error.code() {
        return ["08", "53", "57"].contains(&class(code));
    }
    let cause = std::error::Error::source(error);
    let kind = cause
        .and_then(|cause| cause.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind);
    error.is_closed()
        || matches!(
            kind,
            Some(
                ErrorKind::ConnectionRefused
                    | ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::BrokenPipe
                    | ErrorKind::UnexpectedEof
                    | ErrorKind::TimedOut
            )
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_about_input_and_about_data_are_classified_by_their_code() {
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
