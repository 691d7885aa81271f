//! Parses the event of a request: from an HTTP API or a function URL (payload format 2.0), or from a REST API (format
//! 1.0).
//!
//! `lambda_http` cannot be used for this, because it parses the path as a URI. HTTP APIs decode the path, so a `#` or
//! `?` in it would end the URI, and other characters would cause a panic. A panic or a rejected event counts as an
//! error of the function, and three errors roll back a release. Therefore a malformed event becomes a request that is
//! marked as [`malformed`](Incoming::malformed), and the response is 400.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lambda_http::http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::auth::{Claims, Verifier};
use crate::http::{Incoming, Query};

/// The JSON of an event. Its parts are parsed one by one, so that the path, which determines the format of an error, is
/// known even if another part is malformed.
pub(super) struct Event(Option<Box<RawValue>>);

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Box::<RawValue>::deserialize(deserializer).ok()))
    }
}

/// The relevant parts of both formats.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parts<'a> {
    #[serde(borrow)]
    version: Option<&'a RawValue>,
    #[serde(borrow)]
    route_key: Option<&'a RawValue>,
    #[serde(borrow)]
    raw_path: Option<&'a RawValue>,
    #[serde(borrow)]
    raw_query_string: Option<&'a RawValue>,
    #[serde(borrow)]
    resource: Option<&'a RawValue>,
    #[serde(borrow)]
    path: Option<&'a RawValue>,
    #[serde(borrow)]
    http_method: Option<&'a RawValue>,
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
    #[serde(borrow)]
    multi_value_headers: Option<&'a RawValue>,
    #[serde(borrow)]
    query_string_parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    multi_value_query_string_parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    path_parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    request_context: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    is_base64_encoded: Option<&'a RawValue>,
}

impl Event {
    /// The request of the event. `invocation` is the id of the invocation, used if the event has no request id.
    pub(super) fn into_request(self, invocation: &str) -> Incoming {
        let parts = self.0.as_ref().map(|raw| serde_json::from_str(raw.get()));
        let mut incoming = match parts {
            Some(Ok(parts)) => read(&parts),
            Some(Err(_)) | None => Incoming {
                malformed: Some("The event is not a valid JSON object".to_owned()),
                ..Incoming::default()
            },
        };
        incoming
            .request_id
            .get_or_insert_with(|| invocation.to_owned());
        incoming
    }
}

fn read(parts: &Parts<'_>) -> Incoming {
    let mut reader = Reader::default();
    let context: Map<String, Value> = reader.take("requestContext", parts.request_context);
    let http = context.get("http").and_then(Value::as_object);
    let mut incoming = Incoming {
        path_parameters: reader.path_parameters(parts.path_parameters),
        stage: stage(&context),
        request_id: context
            .get("requestId")
            .and_then(Value::as_str)
            .map(str::to_owned),
        ..Incoming::default()
    };
    // The path is parsed first: it determines the format of an error about the other parts.
    if let Some(http) = http {
        incoming.path = reader.take("rawPath", parts.raw_path);
        let key = match context.get("routeKey") {
            None | Some(Value::Null) => reader.take("routeKey", parts.route_key),
            Some(Value::String(key)) => key.clone(),
            Some(_) => reader.malformed("requestContext.routeKey is not a string"),
        };
        let template = key.split_once(' ').map_or("", |(_, path)| path);
        incoming.route = route_template(template);
        incoming.proxy_path = proxy_path(template, &incoming.path_parameters);
        incoming.method = reader.method(http.get("method"));
        incoming.claims = claims(&context, &["jwt", "claims"], Verifier::HttpApi);
        incoming.headers = reader.headers(parts.headers, None);
        incoming.query = match parts.raw_query_string {
            Some(raw) => Query::parse(&reader.take::<String>("rawQueryString", Some(raw))),
            None => reader.query(parts.query_string_parameters, None),
        };
    } else if parts.http_method.is_some() {
        incoming.path = reader.take("path", parts.path);
        let resource: String = reader.take("resource", parts.resource);
        incoming.route = route_template(&resource);
        incoming.proxy_path = proxy_path(&resource, &incoming.path_parameters);
        let method: Value = reader.take("httpMethod", parts.http_method);
        incoming.method = reader.method(Some(&method));
        // Of the two, only HTTP APIs write the version of format 1.0 into the event.
        let verifier = match parts.version {
            Some(_) => Verifier::HttpApi,
            None => Verifier::RestApi,
        };
        incoming.claims = claims(&context, &["claims"], verifier);
        incoming.headers = reader.headers(parts.headers, parts.multi_value_headers);
        incoming.query = reader.query(
            parts.query_string_parameters,
            parts.multi_value_query_string_parameters,
        );
    } else {
        reader.malformed::<()>("The event is not from API Gateway or a function URL");
    }
    incoming.body = reader.body(parts);
    if incoming.route.is_none() && incoming.path.is_empty() {
        reader.malformed::<()>("The event has no path");
    }
    if !incoming.path.starts_with('/') {
        incoming.path.insert(0, '/');
    }
    incoming.malformed = reader.first_error;
    incoming
}

/// The path template of the matched route; `None` for `$default` and for a greedy parameter, which match many paths.
fn route_template(path: &str) -> Option<String> {
    (path.starts_with('/') && !path.ends_with("+}")).then(|| path.to_owned())
}

/// The path without the base path of a custom domain, for a route with a greedy parameter such as
/// `/api/admin/{proxy+}`. `/{proxy+}` matches the base path too, so it does not show where the base path ends.
fn proxy_path(template: &str, parameters: &BTreeMap<String, String>) -> Option<String> {
    let (start, name) = template.strip_suffix("+}")?.split_once('{')?;
    let rest = parameters.get(name)?;
    (start.len() > 1).then(|| format!("{start}{rest}"))
}

/// The stage, which precedes the path unless it is `$default`.
fn stage(context: &Map<String, Value>) -> String {
    let stage = context.get("stage").and_then(Value::as_str);
    let stage = stage.filter(|stage| *stage != "$default");
    stage.unwrap_or_default().to_owned()
}

fn claims(context: &Map<String, Value>, path: &[&str], verifier: Verifier) -> Option<Claims> {
    let authorizer = context.get("authorizer")?;
    let mut found = authorizer;
    for name in path {
        found = found.get(name)?;
    }
    Some(Claims::verified(found.as_object()?.clone(), verifier))
}

/// Parses parts of an event and keeps the first error.
#[derive(Default)]
struct Reader {
    first_error: Option<String>,
}

impl Reader {
    fn malformed<T: Default>(&mut self, why: &str) -> T {
        self.first_error.get_or_insert_with(|| why.to_owned());
        T::default()
    }

    /// Parses a part of the event; the default if it is absent.
    fn take<T: DeserializeOwned + Default>(&mut self, name: &str, part: Option<&RawValue>) -> T {
        let Some(part) = part else {
            return T::default();
        };
        // The message of serde is dropped: it may quote the part, and a header may contain a secret.
        serde_json::from_str(part.get()).unwrap_or_else(|_| {
            self.malformed(&format!(
                "{name} of the event has a wrong type or cannot be decoded"
            ))
        })
    }

    fn method(&mut self, found: Option<&Value>) -> Method {
        let text = found.and_then(Value::as_str).unwrap_or_default();
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) => method,
            Err(_) => self.malformed("The event has no valid HTTP method"),
        }
    }

    fn path_parameters(&mut self, part: Option<&RawValue>) -> BTreeMap<String, String> {
        let found: BTreeMap<String, Option<String>> = self.take("pathParameters", part);
        let found = found.into_iter();
        found
            .filter_map(|(name, text)| Some((name, text?)))
            .collect()
    }

    /// The headers. REST APIs pass them twice: `multi` has all values of each header, `single` only the last.
    fn headers(&mut self, single: Option<&RawValue>, multi: Option<&RawValue>) -> HeaderMap {
        let multi: BTreeMap<String, Option<Vec<String>>> = self.take("multiValueHeaders", multi);
        let single: BTreeMap<String, Option<String>> = self.take("headers", single);
        let mut headers = HeaderMap::new();
        for (name, values) in multi {
            for value in values.into_iter().flatten() {
                self.add(&mut headers, &name, &value);
            }
        }
        let mut others = HeaderMap::new();
        for (name, value) in single {
            if let Some(value) = value {
                self.add(&mut others, &name, &value);
            }
        }
        // Only REST APIs pass `multi`.
        if headers.is_empty() {
            return others;
        }
        for name in others.keys() {
            if !headers.contains_key(name) {
                for value in others.get_all(name) {
                    headers.append(name, value.clone());
                }
            }
        }
        headers
    }

    fn add(&mut self, headers: &mut HeaderMap, name: &str, value: &str) {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        match (name, value) {
            (Ok(name), Ok(value)) => {
                headers.append(name, value);
            }
            (Err(_), _) | (_, Err(_)) => {
                self.malformed::<()>(
                    "A header of the event contains a character that is invalid in headers",
                );
            }
        }
    }

    fn query(&mut self, single: Option<&RawValue>, multi: Option<&RawValue>) -> Query {
        let multi: BTreeMap<String, Option<Vec<String>>> =
            self.take("multiValueQueryStringParameters", multi);
        let single: BTreeMap<String, Option<String>> = self.take("queryStringParameters", single);
        let mut pairs = Vec::new();
        for (name, value) in single {
            if !multi.contains_key(&name) {
                pairs.push((name, value.unwrap_or_default()));
            }
        }
        for (name, values) in multi {
            let values = values.into_iter().flatten();
            pairs.extend(values.map(|value| (name.clone(), value)));
        }
        Query::of_pairs(pairs)
    }

    fn body(&mut self, parts: &Parts<'_>) -> Vec<u8> {
        let encoded: bool = self.take("isBase64Encoded", parts.is_base64_encoded);
        let body: String = self.take("body", parts.body);
        if !encoded {
            return body.into_bytes();
        }
        STANDARD
            .decode(body)
            .unwrap_or_else(|_| self.malformed("The body of the event is not valid base64"))
    }
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{for_all, json, text};

    use super::*;

    const HTTP_API: &str = include_str!("../../../../events/update-flag.json");
    const SECRET: &str = "do-not-repeat";

    /// A request from an HTTP API, the same from a function URL, and one from a REST API.
    fn examples() -> [Value; 3] {
        let mut http: Value = serde_json::from_str(HTTP_API).expect("JSON");
        http["headers"]["authorization"] = format!("Bearer {SECRET}").into();
        let mut url = http.clone();
        url["requestContext"]["routeKey"] = "$default".into();
        url["isBase64Encoded"] = true.into();
        url["body"] = STANDARD.encode("{}").into();
        let rest = serde_json::json!({
            "resource": "/api/admin/flags/{flagKey}", "path": "/api/admin/flags/a%20b",
            "httpMethod": "PATCH", "headers": {"X-API-Key": SECRET},
            "multiValueHeaders": {"Accept": ["a", "b"], "X-API-Key": [SECRET]},
            "queryStringParameters": {"environment": "staging", "a": null},
            "multiValueQueryStringParameters": {"environment": ["production", "staging"]},
            "pathParameters": {"flagKey": "a b"}, "body": "{\"enabled\":true}",
            "requestContext": {"stage": "prod", "requestId": "r-1",
                "authorizer": {"claims": {"sub": "u-1", "cognito:groups": "admin"}}},
        });
        [http, url, rest]
    }

    fn check(text: &str) {
        // Lambda passes valid JSON of any type.
        let Ok(event) = serde_json::from_str::<Event>(text) else {
            return;
        };
        let incoming = event.into_request("invocation");
        assert!(incoming.request_id.is_some());
        assert!(incoming.path.starts_with('/') || incoming.malformed.is_some());
        let _route = incoming.find();
        if let Some(why) = &incoming.malformed {
            assert!(!why.contains(SECRET), "{why}");
            return;
        }
        // An unpaired surrogate in an unused part does not make the event malformed.
        let Ok(whole) = serde_json::from_str::<Value>(text) else {
            return;
        };
        let encoded = whole["isBase64Encoded"] == true;
        let body = whole["body"].as_str().unwrap_or_default();
        assert!(encoded || incoming.body == body.as_bytes(), "{text}");
        let claims = whole["requestContext"].get("authorizer").is_some();
        assert!(claims || incoming.claims.is_none(), "invented claims");
    }

    #[test]
    fn errors_about_events_contain_no_secrets() {
        for_all(&json(examples()), |event| check(&event.to_string()));
    }

    #[test]
    fn no_event_causes_a_panic() {
        let texts = examples().map(|event| event.to_string());
        let words = &[
            "\"",
            "\\u0000",
            "\\ud800",
            "null",
            "{",
            "}",
            "[]",
            ",",
            ":",
            "\"headers\":",
            "%2F",
            "1e9",
        ];
        for_all(&text(texts, words), |event| check(&event));
    }
}
