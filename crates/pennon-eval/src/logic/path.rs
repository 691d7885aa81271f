//! Where `var` and `missing` look: `user.groups.0`.

use serde_json::{Map, Value};

use super::number::Num;
use super::value::{Text, Val};
use crate::Context;

/// The field that holds what Pennon knows: the key of the flag and the time.
const OWN: &str = "$flagd";

/// Up to so many fields are quicker to walk than to hash for.
const WALKED: usize = 8;

/// A path that the rule spells out.
#[derive(Debug, Clone)]
pub(super) struct Path {
    pieces: Box<[Box<str>]>,
    /// Whether it begins with [`OWN`].
    is_own: bool,
}

/// What a path starts from.
#[derive(Debug, Clone)]
pub(super) enum Scope<'a> {
    /// The context of the caller.
    Context(Asked<'a>),
    /// An item, in the body of `map` and its relatives.
    Item(Val<'a>),
}

/// Which flag is asked for, for whom, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) context: &'a Context,
    pub(super) flag: &'a str,
    pub(super) now: i64,
}

impl Path {
    pub(super) fn new(text: &str) -> Self {
        let pieces: Box<[Box<str>]> = match text {
            "" => Box::default(),
            text => text.split('.').map(Box::from).collect(),
        };
        let is_own = pieces.first().is_some_and(|first| &**first == OWN);
        Self { pieces, is_own }
    }

    /// Whether it leads to all there is.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// What stands in the context, where only objects lie on the way.
    #[inline]
    pub(super) fn peek<'a>(&self, scope: &Scope<'a>) -> Option<&'a Value> {
        let Scope::Context(asked) = scope else {
            return None;
        };
        if self.is_own {
            return None;
        }
        let (first, rest) = self.pieces.split_first()?;
        let mut found = get(asked.context.attributes(), first);
        for piece in rest {
            found = match found {
                Value::Object(fields) => get(fields, piece),
                Value::Null | Value::Bool(_) | Value::Number(_) => &Value::Null,
                Value::String(_) | Value::Array(_) => return None,
            };
        }
        Some(found)
    }

    #[inline]
    pub(super) fn find<'a>(&self, scope: &Scope<'a>) -> Val<'a> {
        match scope {
            Scope::Context(asked) if self.is_own => {
                let mut rest = self.pieces.iter().skip(1).map(|piece| &**piece);
                own(*asked, &mut rest)
            }
            Scope::Context(asked) => match self.pieces.split_first() {
                None => Val::Object(asked.context.attributes()),
                Some((first, rest)) => {
                    let found = field(asked.context.attributes(), first);
                    walk(found, rest.iter().map(|piece| &**piece))
                }
            },
            Scope::Item(item) => walk(item.clone(), self.pieces.iter().map(|piece| &**piece)),
        }
    }
}

/// Finds what a computed path leads to.
pub(super) fn find<'a>(scope: &Scope<'a>, path: &Text<'_>) -> Val<'a> {
    Path::new(path).find(scope)
}

fn own<'a, 'p>(asked: Asked<'a>, rest: &mut impl Iterator<Item = &'p str>) -> Val<'a> {
    let found = match rest.next() {
        Some("flagKey") => Val::text(asked.flag),
        Some("timestamp") => Val::int(asked.now),
        Some(_) | None => Val::Null,
    };
    walk(found, rest)
}

fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Val<'a> {
    Val::of(get(fields, name))
}

fn get<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a Value {
    let found = if fields.len() <= WALKED {
        let mut fields = fields.iter();
        fields.find(|(key, _)| *key == name).map(|(_, value)| value)
    } else {
        fields.get(name)
    };
    found.unwrap_or(&Value::Null)
}

fn walk<'a, 'p>(from: Val<'a>, pieces: impl Iterator<Item = &'p str>) -> Val<'a> {
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
            Val::Text(text) => match piece {
                "length" => length(text.chars().count()),
                piece => index(piece)
                    .and_then(|index| text.chars().nth(index))
                    .map_or(Val::Null, |char| Val::owned_text(char.to_string())),
            },
            Val::Null | Val::Bool(_) | Val::Number(_) => Val::Null,
        };
    }
    found
}

fn length(length: usize) -> Val<'static> {
    Val::Number(i64::try_from(length).map_or(Num::NAN, Num::Int))
}

/// An index as it is written: `0`, `12`, but not `01`, `+1` or ` 1`.
fn index(piece: &str) -> Option<usize> {
    let digits = piece.bytes().all(|byte| byte.is_ascii_digit());
    let is_canonical = digits && (piece == "0" || !piece.starts_with('0'));
    if is_canonical {
        piece.parse().ok()
    } else {
        None
    }
}
