//! An HTTP response of a function or a server.

use std::collections::BTreeMap;

use serde_json::Value;

/// An HTTP response.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Headers, with names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as text.
    pub body: String,
}

impl Response {
    /// Converts the response that a function returns to API Gateway.
    pub fn of_gateway(response: &Value) -> Self {
        let mut headers = BTreeMap::new();
        for (name, value) in response["headers"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            headers.insert(name.to_ascii_lowercase(), value);
        }
        assert_eq!(response["isBase64Encoded"], false, "bodies are text");
        Self {
            status: response["statusCode"]
                .as_u64()
                .and_then(|status| status.try_into().ok())
                .expect("a status"),
            headers,
            body: response["body"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// A header, if present.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// `X-Cache-Source`.
    pub fn source(&self) -> &str {
        self.header("x-cache-source").unwrap_or("absent")
    }
}
