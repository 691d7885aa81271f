//! The values of an evaluation. Values of the context and constants are borrowed; results of operators are owned.

use std::rc::Rc;

use serde_json::{Map, Value};

use super::number::Num;
use crate::limits::{DATA_DEPTH, EvalError};

/// Any value.
#[derive(Debug, Clone)]
pub(crate) enum Val<'a> {
    /// `null`, or absent.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Num),
    /// A text.
    Text(Text<'a>),
    /// A list.
    List(List<'a>),
    /// An object. No operator creates one.
    Object(&'a Map<String, Value>),
    /// The scope of the body of a `reduce`.
    ReduceScope(Rc<ReduceScope<'a>>),
}

/// A text.
#[derive(Debug, Clone)]
pub(crate) enum Text<'a> {
    /// From the context or the rule.
    Borrowed(&'a str),
    /// The result of an operator.
    Owned(Rc<str>),
}

/// A list.
#[derive(Debug, Clone)]
pub(crate) enum List<'a> {
    /// From the context or the rule.
    Borrowed(&'a Vec<Value>),
    /// The result of an operator.
    Owned(Rc<Built<'a>>),
}

/// A list that an operator created.
#[derive(Debug)]
pub(crate) struct Built<'a> {
    items: Vec<Val<'a>>,
    /// Its nesting, without borrowed values: a `reduce` can add a level per item.
    depth: usize,
}

/// The scope of the body of a `reduce`: an object with two fields.
#[derive(Debug)]
pub(crate) struct ReduceScope<'a> {
    /// The result of the previous iteration.
    pub(super) accumulator: Val<'a>,
    /// The current item.
    pub(super) current: Val<'a>,
    depth: usize,
}

impl<'a> Val<'a> {
    pub(super) fn of(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(bool) => Self::Bool(*bool),
            Value::Number(number) => Self::Number(Num::of(number)),
            Value::String(text) => Self::text(text),
            Value::Array(items) => Self::List(List::Borrowed(items)),
            Value::Object(fields) => Self::Object(fields),
        }
    }

    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(Text::Borrowed(text))
    }

    pub(super) fn owned_text(text: impl Into<Rc<str>>) -> Self {
        Self::Text(Text::Owned(text.into()))
    }

    pub(super) fn int(int: i64) -> Self {
        Self::Number(Num::Int(int))
    }

    /// A list of these items.
    pub(super) fn list(items: Vec<Self>) -> Result<Self, EvalError> {
        let depth = 1 + items.iter().map(Self::depth).max().unwrap_or(0);
        if depth > DATA_DEPTH {
            return Err(EvalError::TooDeep);
        }
        Ok(Self::List(List::Owned(Rc::new(Built { items, depth }))))
    }

    /// The scope of the body of a `reduce`.
    pub(super) fn reduce_scope(accumulator: Self, current: Self) -> Result<Self, EvalError> {
        let depth = 1 + accumulator.depth().max(current.depth());
        if depth > DATA_DEPTH {
            return Err(EvalError::TooDeep);
        }
        Ok(Self::ReduceScope(Rc::new(ReduceScope {
            accumulator,
            current,
            depth,
        })))
    }

    /// The nesting of built values. Values of the context have a limit of their own.
    fn depth(&self) -> usize {
        match self {
            Self::List(List::Owned(built)) => built.depth,
            Self::ReduceScope(scope) => scope.depth,
            Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::Text(_)
            | Self::List(List::Borrowed(_))
            | Self::Object(_) => 0,
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::List(_)
            | Self::Object(_)
            | Self::ReduceScope(_) => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Whether it is true as a condition: `false`, `null`, 0, not-a-number, `""` and `[]` are false.
    pub(super) fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(bool) => *bool,
            Self::Number(number) => number.is_truthy(),
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => list.len() > 0,
            Self::Object(_) | Self::ReduceScope(_) => true,
        }
    }

    /// As JSON; `None` for values without a JSON form.
    pub(super) fn json(&self) -> Option<Value> {
        match self {
            Self::Null => Some(Value::Null),
            Self::Bool(bool) => Some(Value::Bool(*bool)),
            Self::Number(number) => number.json().map(Value::Number),
            Self::Text(text) => Some(Value::String(text.to_string())),
            Self::List(list) => {
                let items: Option<Vec<Value>> = list.iter().map(|item| item.json()).collect();
                items.map(Value::Array)
            }
            Self::Object(fields) => Some(Value::Object((*fields).clone())),
            Self::ReduceScope(_) => None,
        }
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Owned(text) => text,
        }
    }
}

impl<'a> List<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Borrowed(items) => items.len(),
            Self::Owned(built) => built.items.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<Val<'a>> {
        match self {
            Self::Borrowed(items) => items.get(index).map(Val::of),
            Self::Owned(built) => built.items.get(index).cloned(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Val<'a>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}
