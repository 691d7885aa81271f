//! An application that evaluates flags with `open-feature-ofrep` and prints the results.
//!
//! The first argument is the job as JSON: `{base, headers, evaluations: [{type, key, fallback, context}]}`.

use std::error::Error;

use open_feature::provider::FeatureProvider;
use open_feature::{EvaluationContext, EvaluationError, StructValue, Value as Field};
use open_feature_ofrep::{OfrepOptions, OfrepProvider};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let text = std::env::args().nth(1).ok_or("a job is needed")?;
    let job: Value = serde_json::from_str(&text)?;
    let mut headers = HeaderMap::new();
    for (name, value) in job["headers"].as_object().ok_or("headers are needed")? {
        let value = HeaderValue::from_str(value.as_str().unwrap_or_default())?;
        headers.insert(HeaderName::from_bytes(name.as_bytes())?, value);
    }
    let provider = OfrepProvider::new(OfrepOptions {
        base_url: job["base"].as_str().unwrap_or_default().to_owned(),
        headers,
        ..OfrepOptions::default()
    })
    .await
    .map_err(|error| error.to_string())?;
    let mut results = Vec::new();
    for wanted in job["evaluations"].as_array().into_iter().flatten() {
        let context = context(wanted["context"].as_object());
        let key = wanted["key"].as_str().unwrap_or_default();
        results.push(match wanted["type"].as_str().unwrap_or_default() {
            "boolean" => shown(provider.resolve_bool_value(key, &context).await, |value| {
                json!(value)
            }),
            "string" => shown(
                provider.resolve_string_value(key, &context).await,
                |value| json!(value),
            ),
            "integer" => shown(provider.resolve_int_value(key, &context).await, |value| {
                json!(value)
            }),
            "float" => shown(provider.resolve_float_value(key, &context).await, |value| {
                json!(value)
            }),
            _ => shown(provider.resolve_struct_value(key, &context).await, object),
        });
    }
    println!("{}", Value::Array(results));
    Ok(())
}

fn shown<T>(
    outcome: Result<open_feature::provider::ResolutionDetails<T>, EvaluationError>,
    show: impl Fn(T) -> Value,
) -> Value {
    match outcome {
        Ok(details) => json!({ "value": show(details.value), "variant": details.variant }),
        Err(error) => {
            json!({ "errorCode": format!("{:?}", error.code), "errorMessage": error.message })
        }
    }
}

fn object(value: StructValue) -> Value {
    let fields = value
        .fields
        .into_iter()
        .map(|(name, field)| (name, plain(field)));
    Value::Object(fields.collect())
}

fn plain(field: Field) -> Value {
    match field {
        Field::Bool(value) => json!(value),
        Field::Int(value) => json!(value),
        Field::Float(value) => json!(value),
        Field::String(value) => json!(value),
        Field::Array(values) => values.into_iter().map(plain).collect(),
        Field::Struct(value) => object(value),
    }
}

/// The context's texts, numbers and booleans; the client supports no other types.
fn context(fields: Option<&Map<String, Value>>) -> EvaluationContext {
    let mut context = EvaluationContext::default();
    for (name, value) in fields.into_iter().flatten() {
        let name = name.as_str();
        context = match value {
            Value::String(text) if name == "targetingKey" => context.with_targeting_key(text),
            Value::String(text) => context.with_custom_field(name, text.as_str()),
            Value::Bool(yes) => context.with_custom_field(name, *yes),
            Value::Number(number) => match number.as_i64() {
                Some(number) => context.with_custom_field(name, number),
                None => context.with_custom_field(name, number.as_f64().unwrap_or_default()),
            },
            Value::Null | Value::Array(_) | Value::Object(_) => context,
        };
    }
    context
}
