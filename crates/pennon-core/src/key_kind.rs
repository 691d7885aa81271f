//! The kinds of API keys.

use serde::{Deserialize, Serialize};

/// Which kind of client uses a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// A server, which keeps the key secret.
    Server,
    /// A program on its users' devices: everyone can read the key.
    Client,
    /// A server that evaluates flags itself and therefore reads their rules.
    Sync,
}
