//! What an admin says of a key.

use pennon_core::api_key::kind_named;
use pennon_core::error::{Complaints, Error};
use pennon_core::snapshot::KeyKind;
use serde_json::{Map, Value};

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

/// Reads `{"kind": "server" | "client", "name": "…"}`. A field of another name is a mistake here: nobody
/// depends on keys having fewer limits than were asked for.
pub(crate) fn parse(body: &[u8]) -> Result<Wanted, Error> {
    let fields: Map<String, Value> = match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Err(Error::invalid_form("Expected a JSON object")),
        Err(_) => return Err(Error::invalid_form("The body is not valid JSON")),
    };
    let mut complaints = Complaints::default();
    for name in fields.keys() {
        if !["kind", "name"].contains(&name.as_str()) {
            complaints.form.push(format!("There is no field '{name}'"));
        }
    }
    let kind = fields
        .get("kind")
        .and_then(Value::as_str)
        .and_then(kind_named);
    if kind.is_none() {
        complaints.add("kind", "Expected server or client");
    }
    let name = fields.get("name").and_then(Value::as_str).map(str::trim);
    let name = name.filter(|name| {
        !name.is_empty() && name.chars().count() <= LONGEST_NAME && !name.contains('\0')
    });
    if name.is_none() {
        complaints.add("name", "Must have 1 to 100 characters");
    }
    match (kind, name) {
        (Some(kind), Some(name)) if complaints.is_empty() => Ok(Wanted {
            kind,
            name: name.to_owned(),
        }),
        _ => Err(Error::Invalid(complaints)),
    }
}

/// Ids are hexadecimal, with or without dashes. Nothing else is looked for.
pub(crate) fn may_be_an_id(text: &str) -> bool {
    text.len() <= 36
        && text
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}
