//! What an admin says of a key.

use pennon_core::api_key::kind_named;
use pennon_core::error::Error;
use pennon_core::http::Fields;
use pennon_core::snapshot::KeyKind;

/// As long as a sentence.
const LONGEST_NAME: usize = 100;

/// A key that is to be made.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Who will use it.
    pub(crate) kind: KeyKind,
    /// What for.
    pub(crate) name: String,
}

/// Reads `{"kind": "server" | "client", "name": "…"}`.
pub(crate) fn parse(body: &[u8]) -> Result<Wanted, Error> {
    let mut fields = Fields::of(body)?;
    let kind = fields.text("kind", 0..=LONGEST_NAME);
    let kind = kind.as_deref().and_then(kind_named);
    if kind.is_none() {
        fields.complaints.add("kind", "Expected server or client");
    }
    let name = fields.text("name", 1..=LONGEST_NAME);
    fields.must_have("name", name.as_ref());
    fields.must_be_empty();
    fields.finish()?;
    Ok(Wanted {
        kind: kind.unwrap_or(KeyKind::Client),
        name: name.unwrap_or_default(),
    })
}

/// Ids are hexadecimal, with or without dashes. Nothing else is looked for.
pub(crate) fn may_be_an_id(text: &str) -> bool {
    text.len() <= 36
        && text
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}
