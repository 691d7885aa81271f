//! Parses the event of a request: from an HTTP API or a function URL (payload format 2.0), or from a REST API or an
//! HTTP API (format 1.0).
//!
//! `lambda_http` cannot be used for this, because it parses the path as a URI. HTTP APIs decode the path, so a `#` or
//! `?` in it would end the path. A rejected event counts as an error of the function, and a few errors roll back a
//! canary. Therefore a malformed event becomes a request that is marked as [`malformed`](Incoming::malformed), and the
//! response is 400.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lambda_http::http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::auth::{Claims, Verifier};
use crate::http::{Incoming, Query};

/// The request of an event. [`Event::into_request`] adds an id if the event has none. The parts of the event are parsed
/// one by one, because the path, which determines the format of an error, is needed even if the body is malformed.
pub(super) struct Event {
    incoming: Incoming,
    /// Whether the event has payload format 2.0.
    pub(super) is_format_2: bool,
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let event = <&RawValue>::deserialize(deserializer);
        let parts = event
            .ok()
            .filter(|event| is_object(event))
            .and_then(|event| serde_json::from_str(event.get()).ok());
        Ok(parts.map_or_else(malformed, |parts| read(&parts)))
    }
}

fn malformed() -> Event {
    let incoming = Incoming {
        malformed: Some("The event is not a valid JSON object".to_owned()),
        ..Incoming::default()
    };
    Event {
        incoming,
        is_format_2: false,
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

/// The relevant parts of `requestContext`. All others are skipped.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context<'a> {
    #[serde(borrow)]
    stage: Option<&'a RawValue>,
    #[serde(borrow)]
    request_id: Option<&'a RawValue>,
    #[serde(borrow)]
    route_key: Option<&'a RawValue>,
    #[serde(borrow)]
    http: Option<&'a RawValue>,
    #[serde(borrow)]
    authorizer: Option<&'a RawValue>,
}

/// The relevant part of `requestContext.http`.
#[derive(Default, Deserialize)]
struct Http<'a> {
    #[serde(borrow)]
    method: Option<&'a RawValue>,
}

/// A string, borrowed from the event unless it contains escapes.
#[derive(Default, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The fields of an object, sorted by name. Of several with the same name, the last one counts.
struct Fields<'a, T>(Vec<(Text<'a>, T)>);

impl<T> Default for Fields<'_, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Fields<'de, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Collect<T> {
            type Value = Fields<'de, T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                // A request from a browser has about as many headers.
                let mut fields = Vec::with_capacity(16);
                while let Some(field) = map.next_entry::<Text<'de>, T>()? {
                    fields.push(field);
                }
                fields.sort_by(|(one, _), (other, _)| one.0.cmp(&other.0));
                fields.dedup_by(|later, earlier| {
                    let is_same = later.0.0 == earlier.0.0;
                    if is_same {
                        std::mem::swap(later, earlier);
                    }
                    is_same
                });
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Collect(PhantomData))
    }
}

impl Event {
    /// The request of the event. `invocation` is the id of the invocation, used if the event has no request id.
    pub(super) fn into_request(self, invocation: &str) -> Incoming {
        let mut incoming = self.incoming;
        incoming
            .request_id
            .get_or_insert_with(|| invocation.to_owned());
        incoming
    }
}

fn read(parts: &Parts<'_>) -> Event {
    let mut reader = Reader::default();
    let context: Context<'_> = match parts.request_context {
        Some(part) if !is_object(part) => reader.malformed(&wrong_part(CONTEXT)),
        part => reader.take(CONTEXT, part),
    };
    let http: Option<Http<'_>> = context
        .http
        .filter(|part| is_object(part))
        .map(|part| reader.take(CONTEXT, Some(part)));
    let is_format_2 = http.is_some();
    let mut incoming = Incoming {
        path_parameters: reader.path_parameters(parts.path_parameters),
        stage: stage(&reader.text(CONTEXT, context.stage).unwrap_or_default()),
        request_id: reader
            .text(CONTEXT, context.request_id)
            .map(Cow::into_owned),
        is_from_gateway: true,
        ..Incoming::default()
    };
    if let Some(http) = http {
        incoming.path = reader.take("rawPath", parts.raw_path);
        let key = match (context.route_key, reader.text(CONTEXT, context.route_key)) {
            (None, _) => reader.take::<Text<'_>>("routeKey", parts.route_key).0,
            (Some(_), Some(key)) => key,
            (Some(_), None) => reader.malformed("requestContext.routeKey is not a string"),
        };
        let template = key.split_once(' ').map_or("", |(_, path)| path);
        incoming.is_path_decoded = template.starts_with('/');
        incoming.route = route_template(template);
        incoming.proxy_path = proxy_path(template, &incoming.path_parameters);
        incoming.method = reader.method(CONTEXT, http.method);
        incoming.claims = reader.claims(context.authorizer, &["jwt", "claims"], Verifier::HttpApi);
        incoming.headers = reader.headers(parts.headers, None);
        incoming.query = match parts.raw_query_string {
            Some(raw) => Query::parse(&reader.take::<Text<'_>>("rawQueryString", Some(raw)).0),
            None => reader.query(parts.query_string_parameters, None),
        };
    } else if parts.http_method.is_some() {
        incoming.path = reader.take("path", parts.path);
        let Text(resource) = reader.take("resource", parts.resource);
        // Both kinds of API send format 1.0, but only an HTTP API writes `version` into the event, and decodes the path.
        let verifier = match parts.version {
            Some(_) => Verifier::HttpApi,
            None => Verifier::RestApi,
        };
        incoming.is_path_decoded = parts.version.is_some() && resource.starts_with('/');
        incoming.route = route_template(&resource);
        incoming.proxy_path = proxy_path(&resource, &incoming.path_parameters);
        incoming.method = reader.method("httpMethod", parts.http_method);
        incoming.claims = reader.claims(context.authorizer, &["claims"], verifier);
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
    Event {
        incoming,
        is_format_2,
    }
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
fn stage(stage: &str) -> String {
    match stage {
        "$default" => String::new(),
        stage => stage.to_owned(),
    }
}

fn is_object(part: &RawValue) -> bool {
    part.get().starts_with('{')
}

/// The error about a part that cannot be parsed. The message of serde is dropped: it may quote the part, and a header
/// may contain a secret.
fn wrong_part(name: &str) -> String {
    format!("{name} of the event has a wrong type or cannot be decoded")
}

/// The headers for which memory is reserved at once: a map panics if asked for too many.
const MAX_RESERVED: usize = 64;
/// The name of this part in errors.
const CONTEXT: &str = "requestContext";

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

    /// Parses a part of the event; the default if it is absent or malformed.
    fn take<'a, T: Deserialize<'a> + Default>(
        &mut self,
        name: &str,
        part: Option<&'a RawValue>,
    ) -> T {
        let Some(part) = part else {
            return T::default();
        };
        serde_json::from_str(part.get()).unwrap_or_else(|_| self.malformed(&wrong_part(name)))
    }

    /// A string; `None` if it is absent or of another type.
    fn text<'a>(&mut self, name: &str, part: Option<&'a RawValue>) -> Option<Cow<'a, str>> {
        let part = part.filter(|part| part.get().starts_with('"'))?;
        Some(self.take::<Text<'a>>(name, Some(part)).0)
    }

    fn method(&mut self, name: &str, part: Option<&RawValue>) -> Method {
        let text = self.text(name, part).unwrap_or_default();
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) => method,
            Err(_) => self.malformed("The event has no valid HTTP method"),
        }
    }

    fn claims(
        &mut self,
        authorizer: Option<&RawValue>,
        path: &[&str],
        verifier: Verifier,
    ) -> Option<Claims> {
        let authorizer: Value = self.take(CONTEXT, Some(authorizer?));
        let mut found = &authorizer;
        for name in path {
            found = found.get(name)?;
        }
        Some(Claims::verified(found.as_object()?.clone(), verifier))
    }

    fn path_parameters(&mut self, part: Option<&RawValue>) -> BTreeMap<String, String> {
        let Fields(found): Fields<'_, Option<String>> = self.take("pathParameters", part);
        let found = found.into_iter();
        found
            .filter_map(|(Text(name), text)| Some((name.into_owned(), text?)))
            .collect()
    }

    /// The headers. Format 1.0 has them twice: `multi` has all values of each header, `single` only the last.
    fn headers(&mut self, single: Option<&RawValue>, multi: Option<&RawValue>) -> HeaderMap {
        let Fields(multi): Fields<'_, Option<Vec<Text<'_>>>> =
            self.take("multiValueHeaders", multi);
        let Fields(single): Fields<'_, Option<Text<'_>>> = self.take("headers", single);
        let mut headers = HeaderMap::with_capacity(multi.len().min(MAX_RESERVED));
        for (Text(name), values) in &multi {
            for Text(value) in values.iter().flatten() {
                self.add(&mut headers, name, value);
            }
        }
        let mut others = HeaderMap::with_capacity(single.len().min(MAX_RESERVED));
        for (Text(name), value) in &single {
            if let Some(Text(value)) = value {
                self.add(&mut others, name, value);
            }
        }
        // Only format 1.0 has `multi`.
        if headers.is_empty() {
            return others;
        }
        for name in others.keys() {
            if !headers.contains_key(name) {
                for value in others.get_all(name) {
                    self.append(&mut headers, name.clone(), value.clone());
                }
            }
        }
        headers
    }

    fn add(&mut self, headers: &mut HeaderMap, name: &str, value: &str) {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        match (name, value) {
            (Ok(name), Ok(value)) => self.append(headers, name, value),
            (Err(_), _) | (_, Err(_)) => {
                self.malformed::<()>(
                    "A header of the event contains a character that is invalid in headers",
                );
            }
        }
    }

    fn append(&mut self, headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
        if headers.try_append(name, value).is_err() {
            self.malformed::<()>("The event has too many headers");
        }
    }

    fn query(&mut self, single: Option<&RawValue>, multi: Option<&RawValue>) -> Query {
        let Fields(multi): Fields<'_, Option<Vec<String>>> =
            self.take("multiValueQueryStringParameters", multi);
        let Fields(single): Fields<'_, Option<String>> = self.take("queryStringParameters", single);
        let mut pairs = Vec::new();
        for (Text(name), value) in single {
            if !multi.iter().any(|(Text(other), _)| *other == name) {
                pairs.push((name.into_owned(), value.unwrap_or_default()));
            }
        }
        for (Text(name), values) in multi {
            let values = values.into_iter().flatten();
            pairs.extend(values.map(|value| (name.clone().into_owned(), value)));
        }
        Query::of_pairs(pairs)
    }

    fn body(&mut self, parts: &Parts<'_>) -> Vec<u8> {
        let encoded: bool = self.take("isBase64Encoded", parts.is_base64_encoded);
        if !encoded {
            return self.take::<String>("body", parts.body).into_bytes();
        }
        let Text(body) = self.take("body", parts.body);
        STANDARD
            .decode(&*body)
            .unwrap_or_else(|_| self.malformed("The body of the event is not valid base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Match;

    fn request(event: &str) -> Incoming {
        let event: Event = serde_json::from_str(event).expect("an event");
        event.into_request("invocation")
    }

    #[test]
    fn the_format_of_an_event_is_recognised() {
        for (event, is_format_2) in [
            (
                r#"{"rawPath": "/x", "requestContext": {"http": {"method": "GET"}}}"#,
                true,
            ),
            (
                r#"{"path": "/x", "httpMethod": "GET", "requestContext": {}}"#,
                false,
            ),
            ("[]", false),
            (
                r#"[null, null, "/x", null, null, null, null, {}, null, null, null, null, {"http": {}}, null, null]"#,
                false,
            ),
        ] {
            let event: Event = serde_json::from_str(event).expect("an event");
            assert_eq!(event.is_format_2, is_format_2);
        }
    }

    #[test]
    fn of_equal_names_the_last_one_counts_and_escapes_are_decoded() {
        let incoming = request(
            r#"{"rawPath": "/\u0061", "headers": {"b\u002d1": "1", "X-A": "2", "x-a": "3", "b-1": "4", "c": null},
                "pathParameters": {"k\u0065y": "v\u0061lue", "none": null},
                "requestContext": {"http": {"method": "G\u0045T"}, "routeKey": "GET /{k\u0065y}",
                    "stage": "st\u0061ge", "requestId": 7, "unused": "\ud800"}}"#,
        );
        assert_eq!(incoming.malformed, None);
        assert_eq!(incoming.path, "/a");
        assert_eq!(incoming.method, Method::GET);
        assert_eq!(incoming.route.as_deref(), Some("/{key}"));
        assert_eq!(incoming.stage, "stage");
        assert_eq!(incoming.request_id.as_deref(), Some("invocation"));
        let parameters = [("key".to_owned(), "value".to_owned())];
        assert_eq!(incoming.path_parameters, parameters.into());
        let headers = &incoming.headers;
        assert_eq!(headers.len(), 3);
        assert_eq!(headers.get("b-1").expect("a header"), "4");
        assert!(headers.get_all("x-a").iter().eq(["2", "3"]));
    }

    #[test]
    fn a_path_that_the_gateway_has_decoded_is_not_decoded_again() {
        let http_api = |route: &str, parameters: &str| {
            format!(
                r#"{{"rawPath": "/config/flags/100%25", "pathParameters": {parameters},
                    "requestContext": {{"http": {{"method": "GET"}}, "routeKey": "{route}"}}}}"#
            )
        };
        let rest_api = |resource: &str, rest: &str| {
            format!(
                r#"{{"httpMethod": "GET", "resource": "{resource}", "path": "/config/flags/100%25",
                    "pathParameters": {{"proxy": "{rest}"}}, "requestContext": {{}}}}"#
            )
        };
        let whole = r#"{"proxy": "config/flags/100%25"}"#;
        for (event, key) in [
            (
                http_api("ANY /config/{proxy+}", r#"{"proxy": "flags/100%25"}"#),
                "100%25",
            ),
            (http_api("ANY /{proxy+}", whole), "100%25"),
            // A function URL sends the same.
            (http_api("$default", "{}"), "100%"),
            (rest_api("/config/{proxy+}", "flags/100%25"), "100%"),
            (rest_api("/{proxy+}", "config/flags/100%25"), "100%"),
            // An HTTP API with format 1.0.
            (
                rest_api("/config/{proxy+}", "flags/100%25").replacen(
                    '{',
                    r#"{"version": "1.0", "#,
                    1,
                ),
                "100%25",
            ),
        ] {
            let Match::Found(_, parameters) = request(&event).find() else {
                panic!("no route: {event}");
            };
            assert_eq!(parameters, [("flagKey", key.to_owned())], "{event}");
        }
    }

    #[test]
    fn a_request_context_that_cannot_be_decoded_is_malformed() {
        for context in [
            "[]",
            "[null, null, null, null, null]",
            "\"x\"",
            "1",
            r#"{"http": {"method": "\ud800"}}"#,
            r#"{"stage": "\ud800"}"#,
        ] {
            let incoming = request(&format!(
                "{{\"rawPath\": \"/a\", \"requestContext\": {context}}}"
            ));
            let malformed = incoming.malformed.expect("malformed");
            assert!(
                malformed.starts_with("requestContext of the event"),
                "{malformed}"
            );
            assert_eq!(incoming.request_id.as_deref(), Some("invocation"));
        }
    }

    #[test]
    fn an_event_with_more_headers_than_a_map_can_hold_is_malformed() {
        let headers: Vec<String> = (0..30_000).map(|n| format!("\"h{n}\": \"\"")).collect();
        let headers = headers.join(",");
        let incoming = request(&format!(
            r#"{{"headers": {{{headers}}}, "requestContext": {{"http": {{"method": "GET", "path": "/a"}}}}}}"#
        ));
        let malformed = incoming.malformed.expect("malformed");
        assert_eq!(malformed, "The event has too many headers");
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
