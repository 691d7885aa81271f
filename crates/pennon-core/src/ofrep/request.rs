//! The body of both evaluation routes: the evaluation context.

use pennon_eval::{Context, json};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::ofrep_format::{Code, Failure};

/// Larger bodies are rejected. A context has a few hundred bytes; this allows a hundred times as much and bounds the
/// cost of an evaluation. API Gateway accepts 10 MB.
pub const MAX_BODY_SIZE: usize = 64 * 1024;

/// SHA-256 of the canonical form of a context: equal for contexts that differ only in the order of fields or in white
/// space.
pub type ContextDigest = [u8; 32];

/// Parses `{"context": {…}}`.
///
/// # Errors
/// A failure of status 413 for a body above [`MAX_BODY_SIZE`]; `PARSE_ERROR` for invalid JSON;
/// `INVALID_CONTEXT` if the body or the context is missing or not an object, the targeting key is not a string, or a
/// key occurs twice in an object, which makes the context ambiguous.
pub fn parse(body: &[u8]) -> Result<Context, Failure> {
    context_of(read(body)?)
}

/// Parses `{"context": {…}}`, and computes the digest of the context.
///
/// # Errors
/// Those of [`parse`].
pub fn parse_with_digest(body: &[u8]) -> Result<(Context, ContextDigest), Failure> {
    let context = read(body)?;
    let mut hasher = Sha256::new();
    digest(&context, &mut hasher);
    Ok((context_of(context)?, hasher.finalize().into()))
}

/// The object `context` in the body.
fn read(body: &[u8]) -> Result<Value, Failure> {
    if body.len() > MAX_BODY_SIZE {
        return Err(Failure::too_large(MAX_BODY_SIZE));
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(invalid("The body is empty; send {\"context\": {…}}"));
    }
    let (body, duplicates) = json::read(body).map_err(|error| {
        Failure::new(
            Code::ParseError,
            format!("The body is not valid JSON: {error}"),
        )
    })?;
    if let Some(first) = duplicates.into_list().first() {
        return Err(invalid(format!("{}: {}", first.pointer, first.message)));
    }
    let Value::Object(mut body) = body else {
        return Err(invalid("The body is not an object"));
    };
    let context = body
        .remove("context")
        .ok_or_else(|| invalid("The body has no context"))?;
    if !context.is_object() {
        return Err(invalid("The context is not an object"));
    }
    Ok(context)
}

fn context_of(context: Value) -> Result<Context, Failure> {
    Context::parse(context).map_err(|error| invalid(error.to_string()))
}

fn invalid(details: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidContext, details)
}

/// Hashes a value in an unambiguous form: a character for its type, lengths before strings and lists, fields sorted by
/// name.
fn digest(value: &Value, hasher: &mut Sha256) {
    let mut text = |letter: &str, text: &str| {
        hasher.update(letter);
        hasher.update(text.len().to_be_bytes());
        hasher.update(text);
    };
    match value {
        Value::Null => hasher.update("n"),
        Value::Bool(true) => hasher.update("t"),
        Value::Bool(false) => hasher.update("f"),
        Value::Number(number) => text("#", &number.to_string()),
        Value::String(string) => text("\"", string),
        Value::Array(items) => {
            hasher.update("[");
            hasher.update(items.len().to_be_bytes());
            for item in items {
                digest(item, hasher);
            }
        }
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort_unstable();
            hasher.update("{");
            hasher.update(names.len().to_be_bytes());
            for name in names {
                hasher.update(name.len().to_be_bytes());
                hasher.update(name);
                digest(&fields[name], hasher);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> Code {
        parse(body.as_bytes()).expect_err(body).code
    }

    fn digest_of(context: &str) -> ContextDigest {
        let body = format!("{{\"context\":{context}}}");
        parse_with_digest(body.as_bytes()).expect(context).1
    }

    #[test]
    fn an_invalid_context_is_distinguished_from_invalid_json() {
        for body in [
            "{",
            "x",
            "{\"context\":{}",
            "{\"context\":{\"a\":1e999}}",
            "{}{}",
        ] {
            assert_eq!(code(body), Code::ParseError, "{body}");
        }
        let not_objects = ["", " \n", "null", "[]", "1", "\"x\"", "{}"];
        for body in not_objects {
            assert_eq!(code(body), Code::InvalidContext, "{body}");
        }
        for context in [
            "null",
            "[]",
            "1",
            "\"x\"",
            "{\"targetingKey\":1}",
            "{\"targetingKey\":{}}",
            "{\"targetingKey\":\"a\",\"targetingKey\":\"b\"}",
            "{\"a\":[{\"b\":1,\"b\":1}]}",
        ] {
            let body = format!("{{\"context\":{context}}}");
            assert_eq!(code(&body), Code::InvalidContext, "{body}");
        }
    }

    #[test]
    fn the_deepest_body_is_rejected_without_a_stack_overflow() {
        let body = format!(
            "{{\"context\":{{\"a\":{}{}}}}}",
            "[".repeat(30_000),
            "]".repeat(30_000)
        );
        assert!(body.len() < MAX_BODY_SIZE);
        assert_eq!(code(&body), Code::ParseError);
    }

    #[test]
    fn order_and_white_space_do_not_change_the_digest() {
        let same = digest_of(r#"{"a":1,"b":{"c":[1,2],"d":null}}"#);
        assert_eq!(
            digest_of("{ \"b\": {\"d\":null, \"c\":[1, 2]},\n\"a\":1 }"),
            same
        );
        for other in [
            r#"{"a":1,"b":{"c":[2,1],"d":null}}"#,
            r#"{"a":1,"b":{"c":[1,2]}}"#,
            r#"{"a":"1","b":{"c":[1,2],"d":null}}"#,
            r#"{"a":1.5,"b":{"c":[1,2],"d":null}}"#,
            r#"{"a":1,"b":{"c":[[1],2],"d":null}}"#,
            r#"{"targetingKey":"u","a":1,"b":{"c":[1,2],"d":null}}"#,
        ] {
            assert_ne!(digest_of(other), same, "{other}");
        }
        assert_ne!(
            digest_of(r#"{"a":"b\"c","d":""}"#),
            digest_of(r#"{"a":"b","c":"d"}"#)
        );
    }
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{bytes, for_all, json};
    use serde_json::json;

    use super::*;

    fn examples() -> [Value; 3] {
        [
            json!({"context": {"targetingKey": "alice", "plan": "pro", "age": 41, "ratio": 0.1}}),
            json!({"context": {"list": [1, -2, 3.5, null, true], "deep": {"a": {"b": ["c"]}}}, "x": 1}),
            json!({"context": {}}),
        ]
    }

    /// The same value with the fields of every object in reverse order.
    fn reversed(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields = fields.iter().rev();
                Value::Object(
                    fields
                        .map(|(name, value)| (name.clone(), reversed(value)))
                        .collect(),
                )
            }
            Value::Array(items) => items.iter().map(reversed).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        }
    }

    #[test]
    fn equal_contexts_have_equal_digests_and_different_ones_differ() {
        for_all(&json(examples()), |body| {
            let Ok((_, original)) = parse_with_digest(body.to_string().as_bytes()) else {
                return;
            };
            let pretty = serde_json::to_vec_pretty(&reversed(&body)).expect("JSON");
            if pretty.len() <= MAX_BODY_SIZE {
                let (_, again) = parse_with_digest(&pretty).expect("the same context");
                assert_eq!(again, original);
            }
            let mut other = body.clone();
            other["context"]["one more"] = json!(1);
            if other["context"] != body["context"]
                && let Ok((_, other)) = parse_with_digest(other.to_string().as_bytes())
            {
                assert_ne!(other, original);
            }
        });
    }

    #[test]
    fn every_body_is_a_context_or_a_failure() {
        let texts = examples().map(|body| body.to_string());
        let words = &[
            "{",
            "}",
            "[",
            "\"",
            "\"context\":",
            "\\u0000",
            "\\ud800",
            "1e999",
            "-0",
            ",",
            " ",
            "\u{feff}",
        ];
        for_all(&bytes(texts, words), |body| {
            if let Err(failure) = parse(&body) {
                assert!(matches!(
                    failure.code,
                    Code::ParseError | Code::InvalidContext | Code::General
                ));
            }
        });
    }
}
