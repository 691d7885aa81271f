//! Runs handlers on AWS Lambda.

mod event;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use lambda_http::http::HeaderMap;
use lambda_http::{Body, LambdaEvent, lambda_runtime, service_fn};
use serde::ser::{Error as _, Serialize, SerializeStruct, Serializer};
use serde_json::Value;

use crate::app::App;
use crate::error::Error;
use crate::http::{Response, Routed, is_json_string};
use event::Event;

/// An error of the Lambda runtime itself, which ends the instance.
pub use lambda_http::Error as RuntimeError;

/// Responds to requests from API Gateway or a function URL: one at a time, or several on Lambda Managed Instances,
/// which set `AWS_LAMBDA_MAX_CONCURRENCY`.
///
/// # Errors
/// If the runtime API becomes unavailable.
pub async fn serve_requests<A, F>(answer: A) -> Result<(), RuntimeError>
where
    A: Fn(Arc<App>, Routed) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let app = Arc::new(Box::pin(App::cold_start()).await);
    let service = service_fn(move |event: LambdaEvent<Event>| {
        let (app, answer) = (app.clone(), answer.clone());
        async move {
            let is_format_2 = event.payload.is_format_2;
            let incoming = event.payload.into_request(&event.context.request_id);
            // Boxed, because the nested types are too deep for the compiler.
            let response = Box::pin(answer(app, incoming.routed())).await;
            Ok::<_, Infallible>(GatewayResponse {
                response,
                is_format_2,
            })
        }
    });
    lambda_runtime::run_concurrent(service).await
}

/// A response as API Gateway expects it, in both payload formats. A binary body, such as a compressed file, is encoded
/// in base64. No header occurs twice.
struct GatewayResponse {
    response: Response,
    /// Whether the event has payload format 2.0.
    is_format_2: bool,
}

impl Serialize for GatewayResponse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (headers, body) = (self.response.headers(), self.response.body());
        let is_binary = matches!(body, Body::Binary(_));
        let mut fields = serializer.serialize_struct("GatewayResponse", 5)?;
        fields.serialize_field("statusCode", &self.response.status().as_u16())?;
        fields.serialize_field("headers", &GatewayHeaders(headers))?;
        fields.serialize_field("isBase64Encoded", &is_binary)?;
        if self.is_format_2 {
            // `cargo lambda watch` rejects a response without it; format 1.0 does not have it.
            fields.serialize_field::<[&str; 0]>("cookies", &[])?;
        }
        if let Body::Text(text) = body
            && !text.is_empty()
        {
            if is_json_string(&self.response) {
                fields.serialize_field("body", &RawJson(text))?;
            } else {
                let escaped = json_string(text).map_err(S::Error::custom)?;
                fields.serialize_field("body", &RawJson(&escaped))?;
            }
        } else if !body.is_empty() {
            fields.serialize_field("body", &STANDARD.encode(body))?;
        }
        fields.end()
    }
}

struct GatewayHeaders<'r>(&'r HeaderMap);

impl Serialize for GatewayHeaders<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let headers = self.0.iter();
        serializer.collect_map(
            headers.map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()))),
        )
    }
}

/// A text as a JSON string. Most bodies are JSON, with a quotation mark every few bytes. `serde_json` copies each piece
/// between two escapes separately, which takes twice as long as this loop.
fn json_string(text: &str) -> serde_json::Result<String> {
    // Enough for an escape of every byte: to write into it is faster than to push.
    let mut json = vec![0; 2 * text.len() + 2];
    let mut rest = json.iter_mut();
    let mut put = |byte: u8| {
        if let Some(next) = rest.next() {
            *next = byte;
        }
    };
    put(b'"');
    for byte in text.bytes() {
        match byte {
            // A control character, such as a line end in a page.
            ..b' ' => return serde_json::to_string(text),
            b'"' | b'\\' => put(b'\\'),
            _ => {}
        }
        put(byte);
    }
    put(b'"');
    let unused = rest.len();
    json.truncate(json.len() - unused);
    // Still UTF-8, because only ASCII was added.
    String::from_utf8(json).or_else(|_| serde_json::to_string(text))
}

/// JSON that `serde_json` writes unchanged. `RawValue` would first parse the text to validate it, which takes as long
/// as writing it.
struct RawJson<'j>(&'j str);

impl Serialize for RawJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// The struct name by which `serde_json`'s serializer recognises a `RawValue`. It is private; a test fails if
        /// it changes.
        const NAME: &str = "$serde_json::private::RawValue";
        let mut fields = serializer.serialize_struct(NAME, 1)?;
        fields.serialize_field(NAME, self.0)?;
        fields.end()
    }
}

/// A handler of events other than requests. It is a function pointer to a boxed future, so that the runtime is
/// compiled once for all of them.
pub type EventHandler = fn(Arc<App>, Value) -> BoxFuture<'static, Result<Value, Error>>;

/// Runs a handler of events other than requests, such as batches of log lines. An error of the handler becomes the
/// error of the invocation.
///
/// # Errors
/// If the runtime API becomes unavailable.
pub async fn serve_events(handle: EventHandler) -> Result<(), RuntimeError> {
    let app = Arc::new(Box::pin(App::cold_start()).await);
    let service = service_fn(move |event: LambdaEvent<Value>| {
        let app = app.clone();
        async move {
            let outcome = handle(app.clone(), event.payload).await;
            app.service.store().end_of_request().await;
            app.report_forged_entries();
            if let Err(error) = &outcome {
                tracing::error!(domain = "config", error = %error, "the event failed");
            }
            // The runtime would report the name of a Rust type.
            outcome.map_err(|error| lambda_runtime::Diagnostic {
                error_type: "Pennon.EventFailed".to_owned(),
                error_message: error.to_string(),
            })
        }
    });
    lambda_runtime::run_concurrent(service).await
}

#[cfg(test)]
mod tests {
    use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpResponse;
    use serde_json::json;

    use super::*;

    fn format_1(body: impl Into<Body>) -> GatewayResponse {
        GatewayResponse {
            response: Response::new(body.into()),
            is_format_2: false,
        }
    }

    fn gateway_response(body: impl Into<Body>) -> Value {
        serde_json::to_value(format_1(body)).expect("JSON")
    }

    #[test]
    fn every_body_arrives_as_it_is() {
        for text in [
            r#"{"a":"\"\\\u0000","b":[true]}"#,
            "<p>\n\t\"1\"\r\n\u{7f}</p>",
            "ä😀\u{2028}\u{0}",
            "\\",
        ] {
            assert_eq!(gateway_response(text)["body"], text);
            let whole = serde_json::to_string(&format_1(text));
            let body = serde_json::to_string(text).expect("JSON");
            let expected = format!(
                "{{\"statusCode\":200,\"headers\":{{}},\"isBase64Encoded\":false,\"body\":{body}}}"
            );
            assert_eq!(whole.expect("JSON"), expected);
        }
        assert_eq!(gateway_response(()).get("body"), None);
        assert_eq!(
            gateway_response(vec![0xff, 0]),
            json!({"statusCode": 200, "headers": {}, "isBase64Encoded": true, "body": "/wA="})
        );
    }

    /// `cargo lambda watch` parses responses as this type.
    #[test]
    fn a_response_in_format_2_has_every_required_field() {
        let response = GatewayResponse {
            is_format_2: true,
            ..format_1("{}")
        };
        let text = serde_json::to_string(&response).expect("JSON");
        let parsed: ApiGatewayV2httpResponse = serde_json::from_str(&text).expect("a response");
        assert_eq!(parsed.status_code, 200);
        assert_eq!(parsed.body, Some("{}".into()));
        let format_1 = gateway_response("{}");
        assert_eq!(format_1.get("cookies"), None, "format 1.0 got cookies");
    }
}
