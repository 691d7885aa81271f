//! Parameters and results that the statements of all tables share.

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// The largest number of rows that one statement writes. The time limit applies to each statement, so an import of
/// thousands of flags needs several.
pub(super) const BATCH_SIZE: usize = 500;

/// A parameter with its type. Naming the type saves the round trip in which the client asks the database for it.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Reads a column that holds a count.
pub(super) fn count(row: &Row, column: &str) -> u64 {
    u64::try_from(row.get::<_, i64>(column)).unwrap_or(0)
}
