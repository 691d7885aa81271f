//! How values become numbers and texts, and when two of them are equal.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::number::Num;
use super::steps::Steps;
use super::stop::Stop;
use super::value::{List, Text, Val};

/// What every object is as a text.
const OBJECT: &str = "[object Object]";

pub(super) fn number(value: &Val<'_>) -> Num {
    match value {
        Val::Null => Num::Int(0),
        Val::Bool(bool) => Num::Int((*bool).into()),
        Val::Number(number) => *number,
        Val::Text(text) => Num::parse(text),
        // As many lists in each other as data may be deep.
        Val::List(list) => match (list.len(), list.get(0)) {
            (0, _) | (_, None) => Num::Int(0),
            (1, Some(only)) => number(&only),
            (_, Some(_)) => Num::NAN,
        },
        Val::Object(_) | Val::Frame(_) => Num::NAN,
    }
}

/// The text of a value: a list is its items with commas between them.
pub(super) fn text<'a>(value: &Val<'a>, steps: &mut Steps) -> Result<Text<'a>, Stop> {
    if let Val::Text(text) = value {
        return Ok(text.clone());
    }
    let mut written = String::new();
    write(value, &mut written, steps)?;
    Ok(Text::Owned(written.into()))
}

/// Appends the text of a value.
pub(super) fn write(value: &Val<'_>, to: &mut String, steps: &mut Steps) -> Result<(), Stop> {
    match value {
        Val::Null => to.push_str("null"),
        Val::Bool(bool) => to.push_str(if *bool { "true" } else { "false" }),
        Val::Number(number) => to.push_str(&number.text()),
        Val::Text(text) => {
            steps.text(text)?;
            to.push_str(text);
        }
        Val::List(list) => {
            for (index, item) in list.iter().enumerate() {
                steps.one()?;
                if index > 0 {
                    to.push(',');
                }
                if !item.is_null() {
                    write(&item, to, steps)?;
                }
            }
        }
        Val::Object(_) | Val::Frame(_) => to.push_str(OBJECT),
    }
    Ok(())
}

/// `===`, and what `in` asks of every item: the same type and the same content.
pub(super) fn same(a: &Val<'_>, b: &Val<'_>, steps: &mut Steps) -> Result<bool, Stop> {
    match (a, b) {
        (Val::Null, Val::Null) => Ok(true),
        (Val::Bool(a), Val::Bool(b)) => Ok(a == b),
        (Val::Number(a), Val::Number(b)) => Ok(a.equals(*b)),
        (Val::Text(a), Val::Text(b)) => Ok(**a == **b),
        (Val::List(a), Val::List(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.iter().zip(b.iter()) {
                steps.one()?;
                if !same(&a, &b, steps)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Val::Object(a), Val::Object(b)) => same_fields(a, b, steps),
        // Two bodies of `reduce` never meet, and no rule makes other objects.
        (
            Val::Null
            | Val::Bool(_)
            | Val::Number(_)
            | Val::Text(_)
            | Val::List(_)
            | Val::Object(_)
            | Val::Frame(_),
            _,
        ) => Ok(false),
    }
}

fn same_fields(
    a: &Map<String, Value>,
    b: &Map<String, Value>,
    steps: &mut Steps,
) -> Result<bool, Stop> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (name, a) in a {
        steps.one()?;
        let Some(b) = b.get(name) else {
            return Ok(false);
        };
        if !same(&Val::of(a), &Val::of(b), steps)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `==`: values of different types are compared as numbers, lists and objects with texts as texts.
pub(super) fn equal(a: &Val<'_>, b: &Val<'_>, steps: &mut Steps) -> Result<bool, Stop> {
    match (a, b) {
        (Val::Text(a), Val::Text(b)) => Ok(**a == **b),
        (Val::Null, Val::Null) => Ok(true),
        (Val::Bool(_) | Val::Number(_), _) | (_, Val::Bool(_) | Val::Number(_)) => {
            Ok(number(a).equals(number(b)))
        }
        (Val::Null, _) | (_, Val::Null) => Ok(false),
        (Val::Text(_), _) | (_, Val::Text(_)) => {
            let (a, b) = (text(a, steps)?, text(b, steps)?);
            Ok(*a == *b)
        }
        // The same one, not one that looks the same.
        (Val::List(List::Borrowed(a)), Val::List(List::Borrowed(b))) => Ok(std::ptr::eq(*a, *b)),
        (Val::Object(a), Val::Object(b)) => Ok(std::ptr::eq(*a, *b)),
        (Val::List(_) | Val::Object(_) | Val::Frame(_), _) => Ok(false),
    }
}

/// The order of two values: texts by their characters, everything else as numbers. Nothing when a
/// number is none.
pub(super) fn order(a: &Val<'_>, b: &Val<'_>, steps: &mut Steps) -> Result<Option<Ordering>, Stop> {
    match (a, b) {
        (Val::Text(a), Val::Text(b)) => Ok(Some((**a).cmp(&**b))),
        (Val::Text(_), Val::List(_) | Val::Object(_) | Val::Frame(_))
        | (Val::List(_) | Val::Object(_) | Val::Frame(_), Val::Text(_)) => {
            let (a, b) = (text(a, steps)?, text(b, steps)?);
            Ok(Some((*a).cmp(&*b)))
        }
        (
            Val::Null
            | Val::Bool(_)
            | Val::Number(_)
            | Val::Text(_)
            | Val::List(_)
            | Val::Object(_)
            | Val::Frame(_),
            _,
        ) => Ok(number(a).compare(number(b))),
    }
}
