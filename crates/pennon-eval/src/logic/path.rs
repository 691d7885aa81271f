//! Paths of `var` and `missing`, such as `user.groups.0`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::bucket::HashedKey;
use super::number::Num;
use super::value::{Text, Val};
use crate::Context;
use crate::limits::{BYTES_PER_STEP, EvalError, Fuel};

/// The field with the flag's key and the time, which Pennon adds.
const FLAGD_FIELD: &str = "$flagd";

/// Up to this number of fields, comparing every name is faster than hashing the one looked for: names of different
/// lengths are unequal without a comparison of bytes.
const MAX_SCANNED: usize = 24;

/// A parsed path.
#[derive(Debug, Clone)]
pub(super) struct Path {
    /// The path as written. Reference-counted, because all rules that refer to one of the environment's `$evaluators`
    /// share its paths.
    text: Arc<str>,
    /// The names between its dots: at least one.
    names: Arc<[Box<str>]>,
    start: Start,
}

/// What the first name of a path refers to if the scope is the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// The whole context: the path is empty.
    Context,
    /// An attribute of the context.
    Attribute,
    /// [`FLAGD_FIELD`].
    Flagd,
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
pub(crate) struct Input<'a> {
    pub(crate) context: &'a Context,
    pub(crate) flag: &'a str,
    pub(crate) hashed_key: &'a HashedKey,
    pub(crate) now: i64,
}

impl Start {
    fn of(path: &str, first: &str) -> Self {
        match first {
            _ if path.is_empty() => Self::Context,
            FLAGD_FIELD => Self::Flagd,
            _ => Self::Attribute,
        }
    }
}

impl Path {
    pub(super) fn new(text: &str) -> Self {
        let names: Arc<[Box<str>]> = text.split('.').map(Box::from).collect();
        Self {
            text: text.into(),
            start: Start::of(text, &names[0]),
            names,
        }
    }

    /// The path as written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The steps (of [`Fuel`]) that following this path costs, in addition to the one for `var`: comparing the names
    /// takes time in proportion to their length.
    #[inline]
    pub(super) fn cost(&self) -> u64 {
        cost(&self.text)
    }

    /// Whether it leads to the whole scope.
    pub(super) fn is_empty(&self) -> bool {
        self.start == Start::Context
    }

    /// The value of an attribute of the context. `None` if the path leads through a text or a list, or starts
    /// elsewhere: only [`Self::find`] follows these.
    #[inline]
    pub(super) fn peek<'a>(&self, scope: &Scope<'a>) -> Option<&'a Value> {
        let (Scope::Context(input), Start::Attribute) = (scope, self.start) else {
            return None;
        };
        let (first, others) = self.names.split_first()?;
        let mut found = get(input.context.attributes(), first);
        for name in others {
            let Value::Object(fields) = found else {
                // These have no fields; texts and lists have a length and items.
                let is_plain = matches!(found, Value::Null | Value::Bool(_) | Value::Number(_));
                return is_plain.then_some(&Value::Null);
            };
            found = get(fields, name);
        }
        Some(found)
    }

    pub(super) fn find<'a>(
        &self,
        scope: &Scope<'a>,
        fuel: &mut Fuel,
    ) -> Result<Val<'a>, EvalError> {
        fuel.charge_request_limit(self.cost())?;
        let names = self.names.iter().map(|name| &**name);
        follow(self.start, names, scope, fuel)
    }
}

/// Follows a computed path.
pub(super) fn find<'a>(
    scope: &Scope<'a>,
    path: &Text<'_>,
    fuel: &mut Fuel,
) -> Result<Val<'a>, EvalError> {
    fuel.charge_request_limit(cost(path))?;
    let names = path.split('.');
    let start = Start::of(path, names.clone().next().unwrap_or_default());
    follow(start, names, scope, fuel)
}

/// The steps of following a path.
#[inline]
fn cost(path: &str) -> u64 {
    (path.len() / BYTES_PER_STEP) as u64
}

#[inline]
fn follow<'a, 'p>(
    start: Start,
    mut names: impl Iterator<Item = &'p str>,
    scope: &Scope<'a>,
    fuel: &mut Fuel,
) -> Result<Val<'a>, EvalError> {
    let from = match (scope, start) {
        (Scope::Context(input), Start::Context) => {
            return Ok(Val::Object(input.context.attributes()));
        }
        (Scope::Item(item), Start::Context) => return Ok(item.clone()),
        (Scope::Context(input), Start::Attribute) => {
            let first = names.next().unwrap_or_default();
            field(input.context.attributes(), first)
        }
        (Scope::Context(input), Start::Flagd) => flagd_field(*input, names.nth(1)),
        (Scope::Item(item), Start::Attribute | Start::Flagd) => item.clone(),
    };
    walk(from, names, fuel)
}

/// A field of [`FLAGD_FIELD`].
fn flagd_field<'a>(input: Input<'a>, name: Option<&str>) -> Val<'a> {
    match name {
        Some("flagKey") => Val::text(input.flag),
        Some("timestamp") => Val::int(input.now),
        Some(_) | None => Val::Null,
    }
}

fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Val<'a> {
    Val::of(get(fields, name))
}

#[inline]
fn get<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a Value {
    if fields.len() > MAX_SCANNED {
        return fields.get(name).unwrap_or(&Value::Null);
    }
    for (key, value) in fields {
        if key == name {
            return value;
        }
    }
    &Value::Null
}

fn walk<'a, 'p>(
    from: Val<'a>,
    names: impl Iterator<Item = &'p str>,
    fuel: &mut Fuel,
) -> Result<Val<'a>, EvalError> {
    let mut found = from;
    for name in names {
        found = match &found {
            Val::Object(fields) => field(fields, name),
            Val::ReduceScope(scope) => match name {
                "accumulator" => scope.accumulator.clone(),
                "current" => scope.current.clone(),
                _ => Val::Null,
            },
            Val::List(list) => match name {
                "length" => length(list.len()),
                name => index(name)
                    .and_then(|index| list.get(index))
                    .unwrap_or(Val::Null),
            },
            Val::Text(text) => {
                // Counts characters.
                fuel.charge_request_limit_for_bytes(text.len())?;
                match name {
                    "length" => length(text.chars().count()),
                    name => index(name)
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
fn index(name: &str) -> Option<usize> {
    let digits = name.bytes().all(|byte| byte.is_ascii_digit());
    let is_canonical = digits && (name == "0" || !name.starts_with('0'));
    if is_canonical {
        name.parse().ok()
    } else {
        None
    }
}
