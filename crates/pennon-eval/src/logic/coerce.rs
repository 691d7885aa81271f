//! Conversion of values to numbers and texts, equality and order.

use std::cmp::Ordering;
use std::rc::Rc;

use super::number::Num;
use super::value::{List, Text, Val};
use crate::limits::{EvalError, Fuel};

/// The text of every object.
const OBJECT: &str = "[object Object]";

/// Converts a value as JavaScript's `Number()` does.
pub(super) fn number(value: &Val<'_>, fuel: &mut Fuel) -> Result<Num, EvalError> {
    Ok(match value {
        Val::Null => Num::Int(0),
        Val::Bool(bool) => Num::Int((*bool).into()),
        Val::Number(number) => *number,
        Val::Text(text) => {
            fuel.charge_request_limit_for_bytes(text.len())?;
            Num::parse(text)
        }
        Val::List(_) => Num::parse(&text(value, fuel)?),
        Val::Object(_) | Val::ReduceScope(_) => Num::NAN,
    })
}

/// Converts an operand of `+` and `*`: a text counts as the number at its beginning.
pub(super) fn operand(value: &Val<'_>, fuel: &mut Fuel) -> Result<Num, EvalError> {
    Ok(match value {
        Val::Null => Num::Int(0),
        Val::Bool(bool) => Num::Int((*bool).into()),
        Val::Number(number) => *number,
        Val::Text(text) => {
            fuel.charge_request_limit_for_bytes(text.len())?;
            Num::parse_prefix(text)
        }
        Val::List(_) => Num::parse_prefix(&text(value, fuel)?),
        Val::Object(_) | Val::ReduceScope(_) => Num::NAN,
    })
}

/// Converts a value to a text. The items of a list are joined with commas.
pub(super) fn text<'a>(value: &Val<'a>, fuel: &mut Fuel) -> Result<Text<'a>, EvalError> {
    if let Val::Text(text) = value {
        return Ok(text.clone());
    }
    let mut written = String::new();
    write(value, &mut written, fuel)?;
    Ok(Text::Owned(written.into()))
}

/// Appends the text of a value.
pub(super) fn write(value: &Val<'_>, to: &mut String, fuel: &mut Fuel) -> Result<(), EvalError> {
    match value {
        Val::Null => to.push_str("null"),
        Val::Bool(bool) => to.push_str(if *bool { "true" } else { "false" }),
        Val::Number(number) => to.push_str(&number.text()),
        Val::Text(text) => {
            fuel.charge_text(text)?;
            to.push_str(text);
        }
        Val::List(list) => {
            for (index, item) in list.iter().enumerate() {
                fuel.charge_step()?;
                if index > 0 {
                    to.push(',');
                }
                if !item.is_null() {
                    write(&item, to, fuel)?;
                }
            }
        }
        Val::Object(_) | Val::ReduceScope(_) => to.push_str(OBJECT),
    }
    Ok(())
}

/// `===`, also used by `in`: the same type and content. Lists and objects are equal only to themselves.
pub(super) fn same(a: &Val<'_>, b: &Val<'_>, fuel: &mut Fuel) -> Result<bool, EvalError> {
    Ok(match (a, b) {
        (Val::Null, Val::Null) => true,
        (Val::Bool(a), Val::Bool(b)) => a == b,
        (Val::Number(a), Val::Number(b)) => a.equals(*b),
        (Val::Text(a), Val::Text(b)) => return same_text(a, b, fuel),
        (Val::List(List::Borrowed(a)), Val::List(List::Borrowed(b))) => std::ptr::eq(*a, *b),
        (Val::List(List::Owned(a)), Val::List(List::Owned(b))) => Rc::ptr_eq(a, b),
        (Val::Object(a), Val::Object(b)) => std::ptr::eq(*a, *b),
        (Val::ReduceScope(a), Val::ReduceScope(b)) => Rc::ptr_eq(a, b),
        (
            Val::Null
            | Val::Bool(_)
            | Val::Number(_)
            | Val::Text(_)
            | Val::List(_)
            | Val::Object(_)
            | Val::ReduceScope(_),
            _,
        ) => false,
    })
}

/// Whether two texts are equal. Different lengths cost no step.
pub(super) fn same_text(a: &str, b: &str, fuel: &mut Fuel) -> Result<bool, EvalError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    fuel.charge_request_limit_for_bytes(a.len())?;
    Ok(a == b)
}

/// `==`. With a number or boolean, both operands are compared as numbers. `null` equals no text, list or object. A list
/// or object is compared with a text as text, and with another list or object by identity.
pub(super) fn equal(a: &Val<'_>, b: &Val<'_>, fuel: &mut Fuel) -> Result<bool, EvalError> {
    match (a, b) {
        (Val::Text(a), Val::Text(b)) => same_text(a, b, fuel),
        (Val::Null, Val::Null) => Ok(true),
        (Val::Bool(_) | Val::Number(_), _) | (_, Val::Bool(_) | Val::Number(_)) => {
            Ok(number(a, fuel)?.equals(number(b, fuel)?))
        }
        (Val::Null, _) | (_, Val::Null) => Ok(false),
        (Val::Text(_), _) | (_, Val::Text(_)) => {
            let (a, b) = (text(a, fuel)?, text(b, fuel)?);
            Ok(*a == *b)
        }
        (Val::List(_) | Val::Object(_) | Val::ReduceScope(_), _) => same(a, b, fuel),
    }
}

/// The order of two values: texts by code points; lists and objects as texts, but as numbers against `null`,
/// booleans and numbers; everything else as numbers. `None` for not-a-number.
pub(super) fn order(
    a: &Val<'_>,
    b: &Val<'_>,
    fuel: &mut Fuel,
) -> Result<Option<Ordering>, EvalError> {
    match (a, b) {
        (Val::Text(a), Val::Text(b)) => {
            fuel.charge_request_limit_for_bytes(a.len().min(b.len()))?;
            Ok(Some((**a).cmp(&**b)))
        }
        (Val::Null | Val::Bool(_) | Val::Number(_), _)
        | (_, Val::Null | Val::Bool(_) | Val::Number(_)) => {
            Ok(number(a, fuel)?.compare(number(b, fuel)?))
        }
        (Val::Text(_) | Val::List(_) | Val::Object(_) | Val::ReduceScope(_), _) => {
            let (a, b) = (text(a, fuel)?, text(b, fuel)?);
            Ok(Some((*a).cmp(&*b)))
        }
    }
}
