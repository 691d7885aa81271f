//! The context of an evaluation.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use crate::UserId;
use crate::bucket::sha256_bucket;
use crate::limits::{CONTEXT_NODES, DATA_DEPTH};

/// The attribute with the user id.
const TARGETING_KEY: &str = "targetingKey";

/// The attributes of a caller that rules can read, with the targeting key among them.
#[derive(Debug, Clone, Default)]
pub struct Context {
    attributes: Map<String, Value>,
    user: Option<UserId>,
    /// The SHA-256 bucket of the caller, computed once for all flags without a salt.
    bucket: OnceLock<u8>,
}

/// Why a value is not a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidContext {
    /// The value is not an object.
    #[error("the context must be an object")]
    NotAnObject,
    /// The targeting key is not a string.
    #[error("the targeting key must be a string")]
    TargetingKeyNotAString,
    /// The context is nested deeper than 32 levels.
    #[error("the context is nested deeper than {DATA_DEPTH} levels")]
    TooDeep,
    /// The context contains more than 10,000 values.
    #[error("the context has more than {CONTEXT_NODES} values")]
    TooLarge,
}

impl Context {
    /// Parses a context. `targetingKey` may be absent, and an empty one counts as absent.
    ///
    /// # Errors
    /// [`InvalidContext`]. A context that is too deep or too large could not be evaluated in bounded time.
    pub fn parse(value: Value) -> Result<Self, InvalidContext> {
        let Value::Object(attributes) = value else {
            return Err(InvalidContext::NotAnObject);
        };
        let user = match attributes.get(TARGETING_KEY) {
            None | Some(Value::Null) => None,
            Some(Value::String(user)) => UserId::parse(user.as_str()),
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                return Err(InvalidContext::TargetingKeyNotAString);
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

    /// A context with only a user id, or an empty context.
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

    /// The user id of the caller.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Whether the context has no attributes.
    pub(crate) fn is_empty(&self) -> bool {
        self.attributes.is_empty()
    }

    pub(crate) fn attributes(&self) -> &Map<String, Value> {
        &self.attributes
    }

    /// The SHA-256 bucket of the caller in flags without a salt. `user` is the user id of this context.
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
        assert_eq!(user(json!([])), Err(InvalidContext::NotAnObject));
        assert_eq!(
            user(json!({"targetingKey": 1})),
            Err(InvalidContext::TargetingKeyNotAString)
        );
    }

    #[test]
    fn a_context_that_is_too_deep_or_too_large_is_rejected() {
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
