//! The event of a request: from an HTTP API or a function URL (payload format 2.0), or from a REST API
//! (format 1.0).
//!
//! Read here and not by `lambda_http`, which makes a URI of the path. HTTP APIs hand the path over
//! decoded: `#` and `?` would end it there, and whatever no URI can hold would be a panic. A panic, or
//! an event of another form, would be an error of the function, and three of those undo a release.
//! Here nothing is an error of the function: an event that cannot be read is a request with a
//! [`defect`](Incoming::defect), which is answered 400.

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

/// The text of an event. Its parts are read one by one, so that the path of a request is known, and
/// decides the form of the answer, even where its body is not text.
pub(super) struct Event(Option<Box<RawValue>>);

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Box::<RawValue>::deserialize(deserializer).ok()))
    }
}

/// The parts of both formats that matter here.
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
    /// The request that the event is about. `invocation` is Lambda's id of it, for events without one.
    pub(super) fn into_request(self, invocation: &str) -> Incoming {
        let parts = self.0.as_ref().map(|raw| serde_json::from_str(raw.get()));
        let mut incoming = match parts {
            Some(Ok(parts)) => read(&parts),
            Some(Err(_)) | None => Incoming {
                defect: Some("The event is not a JSON object that can be read".to_owned()),
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
    // The form of a path decides the form of an answer: it is read before anything can be wrong.
    if let Some(http) = http {
        incoming.path = reader.take("rawPath", parts.raw_path);
        let key = match context.get("routeKey") {
            None | Some(Value::Null) => reader.take("routeKey", parts.route_key),
            Some(Value::String(key)) => key.clone(),
            Some(_) => reader.spoilt("requestContext.routeKey is not a text"),
        };
        let template = key.split_once(' ').map_or("", |(_, path)| path);
        incoming.route = chosen(template);
        incoming.routed_path = behind_base_path(template, &incoming.path_parameters);
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
        incoming.route = chosen(&resource);
        incoming.routed_path = behind_base_path(&resource, &incoming.path_parameters);
        let method: Value = reader.take("httpMethod", parts.http_method);
        incoming.method = reader.method(Some(&method));
        // HTTP APIs write format 1.0 with its number, REST APIs without.
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
        reader.spoilt::<()>("The event is not one of API Gateway or a function URL");
    }
    incoming.body = reader.body(parts);
    if incoming.route.is_none() && incoming.path.is_empty() {
        reader.spoilt::<()>("The event has no path");
    }
    if !incoming.path.starts_with('/') {
        incoming.path.insert(0, '/');
    }
    incoming.defect = reader.defect;
    incoming
}

/// The path of a route that the gateway has chosen; nothing for a route that takes every path.
fn chosen(path: &str) -> Option<String> {
    (path.starts_with('/') && !path.ends_with("+}")).then(|| path.to_owned())
}

/// The path of a request to a route for all paths that begin alike, such as `/api/admin/{proxy+}`. A route
/// that takes every path says nothing of where a base path ends.
fn behind_base_path(template: &str, parameters: &BTreeMap<String, String>) -> Option<String> {
    let (start, name) = template.strip_suffix("+}")?.split_once('{')?;
    let rest = parameters.get(name)?;
    (start.len() > 1).then(|| format!("{start}{rest}"))
}

/// The stage, where it may stand before the path.
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

/// Reads parts of an event, and keeps what was wrong first.
#[derive(Default)]
struct Reader {
    defect: Option<String>,
}

impl Reader {
    fn spoilt<T: Default>(&mut self, why: &str) -> T {
        self.defect.get_or_insert_with(|| why.to_owned());
        T::default()
    }

    /// A part of the event, or what an absent one stands for.
    fn take<T: DeserializeOwned + Default>(&mut self, name: &str, part: Option<&RawValue>) -> T {
        let Some(part) = part else {
            return T::default();
        };
        // What serde says may quote the part, and a header may be a secret.
        serde_json::from_str(part.get()).unwrap_or_else(|_| {
            self.spoilt(&format!(
                "{name} of the event is of another type or cannot be decoded"
            ))
        })
    }

    fn method(&mut self, found: Option<&Value>) -> Method {
        let text = found.and_then(Value::as_str).unwrap_or_default();
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) => method,
            Err(_) => self.spoilt("The event has no method that HTTP allows"),
        }
    }

    fn path_parameters(&mut self, part: Option<&RawValue>) -> BTreeMap<String, String> {
        let found: BTreeMap<String, Option<String>> = self.take("pathParameters", part);
        let found = found.into_iter();
        found
            .filter_map(|(name, text)| Some((name, text?)))
            .collect()
    }

    /// The headers. Where a gateway gives a list of values of each, it is the whole.
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
                self.spoilt::<()>(
                    "A header of the event holds a character that no header can hold",
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
            .unwrap_or_else(|_| self.spoilt("The body of the event is not the base64 that it says"))
    }
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{for_all, json, text};

    use super::*;

    const HTTP_API: &str = include_str!("../../../../events/update-flag.json");
    const SECRET: &str = "do-not-repeat";

    /// A request of an HTTP API, the same at a function URL, and one of a REST API.
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
        // Lambda hands over JSON, of whatever kind.
        let Ok(event) = serde_json::from_str::<Event>(text) else {
            return;
        };
        let incoming = event.into_request("invocation");
        assert!(incoming.request_id.is_some());
        assert!(incoming.path.starts_with('/') || incoming.defect.is_some());
        let _route = incoming.find();
        if let Some(defect) = &incoming.defect {
            assert!(!defect.contains(SECRET), "{defect}");
            return;
        }
        // Half a surrogate pair in a part that nobody looks at is no defect.
        let Ok(whole) = serde_json::from_str::<Value>(text) else {
            return;
        };
        let encoded = whole["isBase64Encoded"] == true;
        let body = whole["body"].as_str().unwrap_or_default();
        assert!(encoded || incoming.body == body.as_bytes(), "{text}");
        let claims = whole["requestContext"].get("authorizer").is_some();
        assert!(claims || incoming.claims.is_none(), "claims from nowhere");
    }

    #[test]
    fn every_event_is_a_request_or_says_what_is_wrong_without_its_secrets() {
        for_all(&json(examples()), |event| check(&event.to_string()));
    }

    #[test]
    fn every_text_of_an_event_is_survived() {
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
