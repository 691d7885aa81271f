//! Paths of `var` and `missing`, such as `user.groups.0`.

use std::iter;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::number::Num;
use super::value::{Text, Val};
use crate::Context;
use crate::limits::{BYTES_PER_STEP, EvalError, Fuel};

/// The field with the flag's key and the time, which Pennon adds.
const FLAGD_FIELD: &str = "$flagd";

/// At most this many fields are faster to scan than to hash.
const MAX_SCANNED: usize = 8;

/// A parsed path.
#[derive(Debug, Clone)]
pub(super) struct Path {
    /// Names with dots between them. Rules that refer to the same evaluator share it.
    text: Arc<str>,
    /// The length of the first name.
    first: usize,
    /// Where each of the other names ends in the text.
    ends: Arc<[usize]>,
    /// Whether its first name is [`FLAGD_FIELD`].
    is_flagd: bool,
}

/// The value that a path starts from.
#[derive(Debug, Clone)]
pub(super) enum Scope<'a> {
    /// The context of the caller.
    Context(Input<'a>),
    /// An item, in the body of `map` and its relatives.
    Item(Val<'a>),
}

/// The flag, the caller and the time of an evaluation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) context: &'a Context,
    pub(super) flag: &'a str,
    pub(super) now: i64,
}

impl Path {
    pub(super) fn new(text: &str) -> Self {
        let dots = text.match_indices('.').map(|(at, _)| at);
        let mut ends = dots.chain(iter::once(text.len()));
        let first = ends.next().unwrap_or(0);
        let ends: Vec<usize> = ends.collect();
        Self {
            text: text.into(),
            first,
            ends: if ends.is_empty() {
                // Allocates nothing.
                Arc::default()
            } else {
                ends.into()
            },
            is_flagd: text.get(..first) == Some(FLAGD_FIELD),
        }
    }

    /// The path as written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The steps of following it, beside the one of `var`: its names are compared.
    pub(super) fn cost(&self) -> u64 {
        (self.text.len() / BYTES_PER_STEP) as u64
    }

    /// Whether it leads to the whole scope.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The first name, and the others.
    #[inline]
    fn names(&self) -> (&str, impl Iterator<Item = &str>) {
        let mut begin = self.first;
        let others = self.ends.iter().map(move |end| {
            // Behind the dot.
            let name = self.text.get(begin + 1..*end);
            begin = *end;
            name.unwrap_or_default()
        });
        (self.text.get(..self.first).unwrap_or_default(), others)
    }

    /// The value in the context, if the path leads only through objects.
    #[inline]
    pub(super) fn peek<'a>(&self, scope: &Scope<'a>) -> Option<&'a Value> {
        let Scope::Context(input) = scope else {
            return None;
        };
        if self.is_flagd || self.is_empty() {
            return None;
        }
        let (first, others) = self.names();
        let mut found = get(input.context.attributes(), first);
        for piece in others {
            found = match found {
                Value::Object(fields) => get(fields, piece),
                Value::Null | Value::Bool(_) | Value::Number(_) => &Value::Null,
                Value::String(_) | Value::Array(_) => return None,
            };
        }
        Some(found)
    }

    #[inline]
    pub(super) fn find<'a>(
        &self,
        scope: &Scope<'a>,
        fuel: &mut Fuel,
    ) -> Result<Val<'a>, EvalError> {
        fuel.charge_request(self.cost())?;
        let (first, others) = self.names();
        match scope {
            Scope::Context(input) if self.is_empty() => Ok(Val::Object(input.context.attributes())),
            Scope::Context(input) if self.is_flagd => flagd_field(*input, others, fuel),
            Scope::Context(input) => walk(field(input.context.attributes(), first), others, fuel),
            Scope::Item(item) if self.is_empty() => Ok(item.clone()),
            Scope::Item(item) => walk(item.clone(), iter::once(first).chain(others), fuel),
        }
    }
}

/// Follows a computed path.
pub(super) fn find<'a>(
    scope: &Scope<'a>,
    path: &Text<'_>,
    fuel: &mut Fuel,
) -> Result<Val<'a>, EvalError> {
    Path::new(path).find(scope, fuel)
}

fn flagd_field<'a, 'p>(
    input: Input<'a>,
    mut names: impl Iterator<Item = &'p str>,
    fuel: &mut Fuel,
) -> Result<Val<'a>, EvalError> {
    let found = match names.next() {
        Some("flagKey") => Val::text(input.flag),
        Some("timestamp") => Val::int(input.now),
        Some(_) | None => Val::Null,
    };
    walk(found, names, fuel)
}

fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Val<'a> {
    Val::of(get(fields, name))
}

fn get<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a Value {
    let found = if fields.len() <= MAX_SCANNED {
        let mut fields = fields.iter();
        fields.find(|(key, _)| *key == name).map(|(_, value)| value)
    } else {
        fields.get(name)
    };
    found.unwrap_or(&Value::Null)
}

fn walk<'a, 'p>(
    from: Val<'a>,
    pieces: impl Iterator<Item = &'p str>,
    fuel: &mut Fuel,
) -> Result<Val<'a>, EvalError> {
    let mut found = from;
    for piece in pieces {
        found = match &found {
            Val::Object(fields) => field(fields, piece),
            Val::Frame(frame) => match piece {
                "accumulator" => frame.accumulator.clone(),
                "current" => frame.current.clone(),
                _ => Val::Null,
            },
            Val::List(list) => match piece {
                "length" => length(list.len()),
                piece => index(piece)
                    .and_then(|index| list.get(index))
                    .unwrap_or(Val::Null),
            },
            Val::Text(text) => {
                // Counts characters.
                fuel.charge_request_for_bytes(text.len())?;
                match piece {
                    "length" => length(text.chars().count()),
                    piece => index(piece)
                        .and_then(|index| text.chars().nth(index))
                        .map_or(Val::Null, |char| Val::owned_text(char.to_string())),
                }
            }
            Val::Null | Val::Bool(_) | Val::Number(_) => return Ok(Val::Null),
        };
    }
    Ok(found)
}

fn length(length: usize) -> Val<'static> {
    Val::Number(i64::try_from(length).map_or(Num::NAN, Num::Int))
}

/// An index in its canonical form: `0`, `12`, but not `01`, `+1` or ` 1`.
fn index(piece: &str) -> Option<usize> {
    let digits = piece.bytes().all(|byte| byte.is_ascii_digit());
    let is_canonical = digits && (piece == "0" || !piece.starts_with('0'));
    if is_canonical {
        piece.parse().ok()
    } else {
        None
    }
}
