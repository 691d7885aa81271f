//! Parses requests about keys.

use pennon_core::api_key::parse_kind;
use pennon_core::error::Error;
use pennon_core::http::Fields;
use pennon_core::key_kind::KeyKind;

/// Limit on the name of a key, in characters.
const MAX_NAME_LENGTH: usize = 100;

/// The key to create.
#[derive(Debug)]
pub(crate) struct NewKey {
    /// The kind of clients that will use the key.
    pub(crate) kind: KeyKind,
    /// The purpose of the key, for admins.
    pub(crate) name: String,
}

/// Parses `{"kind": "server" | "client" | "sync", "name": "…"}`.
pub(crate) fn parse(body: &[u8]) -> Result<NewKey, Error> {
    let mut fields = Fields::parse(body)?;
    let kind = fields.take("kind", |value| {
        let kind = value.as_str().and_then(parse_kind);
        kind.ok_or("Expected server, client or sync")
    });
    fields.require("kind", kind.as_ref());
    let name = fields.visible_name("name", MAX_NAME_LENGTH);
    fields.require("name", name.as_ref());
    fields.reject_rest();
    fields.finish()?;
    Ok(NewKey {
        kind: kind.unwrap_or(KeyKind::Client),
        name: name.unwrap_or_default(),
    })
}
