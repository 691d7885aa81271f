//! For whom, and in which circumstances, flags are evaluated.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use crate::UserId;
use crate::bucket::sha256_bucket;
use crate::limits::{CONTEXT_NODES, DATA_DEPTH};

/// The field that names the caller.
const TARGETING_KEY: &str = "targetingKey";

/// What rules can look at: the caller's targeting key and any other attributes.
#[derive(Debug, Clone, Default)]
pub struct Context {
    attributes: Map<String, Value>,
    user: Option<UserId>,
    /// The caller's SHA-256 bucket in flags without a salt, once it was needed: it is the same for all.
    bucket: OnceLock<u8>,
}

/// Why a value is no context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidContext {
    /// It is something else than an object.
    #[error("the context is no object")]
    NoObject,
    /// Its targeting key is something else than a text.
    #[error("the targeting key is no text")]
    NoText,
    /// It is nested too deep.
    #[error("the context is nested deeper than {DATA_DEPTH} levels")]
    TooDeep,
    /// It holds too much.
    #[error("the context holds more than {CONTEXT_NODES} values")]
    TooLarge,
}

impl Context {
    /// Takes an object as a context. Its `targetingKey` may be absent; an empty one is nobody.
    ///
    /// # Errors
    /// [`InvalidContext`] when it is no object, its `targetingKey` no text, or it is too deep or too
    /// large to be evaluated in bounded time.
    pub fn parse(value: Value) -> Result<Self, InvalidContext> {
        let Value::Object(attributes) = value else {
            return Err(InvalidContext::NoObject);
        };
        let user = match attributes.get(TARGETING_KEY) {
            None | Some(Value::Null) => None,
            Some(Value::String(user)) => UserId::parse(user.as_str()),
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                return Err(InvalidContext::NoText);
            }
        };
        let mut left = CONTEXT_NODES;
        for value in attributes.values() {
            measure(value, 1, &mut left)?;
        }
        Ok(Self {
            attributes,
            user,
            bucket: OnceLock::new(),
        })
    }

    /// The context of a user of whom nothing else is known, or of nobody.
    #[must_use]
    pub fn of(user: Option<&UserId>) -> Self {
        let mut attributes = Map::new();
        if let Some(user) = user {
            attributes.insert(TARGETING_KEY.to_owned(), user.as_str().into());
        }
        Self {
            attributes,
            user: user.cloned(),
            bucket: OnceLock::new(),
        }
    }

    /// The caller.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Whether nothing is known of the caller.
    pub(crate) fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.user.is_none()
    }

    pub(crate) fn attributes(&self) -> &Map<String, Value> {
        &self.attributes
    }

    /// The SHA-256 bucket of the caller, who is this user, in flags without a salt.
    pub(crate) fn bucket(&self, user: &UserId) -> u8 {
        *self.bucket.get_or_init(|| sha256_bucket("", user))
    }
}

fn measure(value: &Value, depth: usize, left: &mut usize) -> Result<(), InvalidContext> {
    if depth > DATA_DEPTH {
        return Err(InvalidContext::TooDeep);
    }
    *left = left.checked_sub(1).ok_or(InvalidContext::TooLarge)?;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| measure(item, depth + 1, left)),
        Value::Object(fields) => fields
            .values()
            .try_for_each(|value| measure(value, depth + 1, left)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_context_is_an_object_with_or_without_a_targeting_key() {
        let user = |value| Context::parse(value).map(|context| context.user().cloned());
        assert_eq!(user(json!({})), Ok(None));
        assert_eq!(user(json!({"targetingKey": ""})), Ok(None));
        assert_eq!(user(json!({"targetingKey": null})), Ok(None));
        assert_eq!(user(json!({"targetingKey": "a"})), Ok(UserId::parse("a")));
        assert_eq!(user(json!([])), Err(InvalidContext::NoObject));
        assert_eq!(
            user(json!({"targetingKey": 1})),
            Err(InvalidContext::NoText)
        );
    }

    #[test]
    fn a_context_is_bounded() {
        let mut deep = json!(1);
        for _ in 0..DATA_DEPTH {
            deep = json!([deep]);
        }
        let depth = |value| Context::parse(json!({"a": value})).err();
        assert_eq!(depth(deep[0].clone()), None);
        assert_eq!(depth(deep), Some(InvalidContext::TooDeep));
        let wide = |items| depth(json!(vec![0; items]));
        assert_eq!(wide(CONTEXT_NODES - 1), None);
        assert_eq!(wide(CONTEXT_NODES), Some(InvalidContext::TooLarge));
    }
}
