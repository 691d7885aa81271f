//! An HTTP response of a function or a server.

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde_json::Value;

/// An HTTP response.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Headers, with names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as text, decompressed.
    pub body: String,
}

/// A body as text. `encoding` is its `Content-Encoding`.
pub(crate) fn decoded(body: &[u8], encoding: Option<&String>) -> String {
    let mut plain = Vec::new();
    let body = match encoding.map(String::as_str) {
        Some("gzip") if !body.is_empty() => {
            GzDecoder::new(body).read_to_end(&mut plain).expect("gzip");
            &plain
        }
        Some("zstd") if !body.is_empty() => {
            plain = zstd::decode_all(body).expect("zstd");
            &plain
        }
        _ => body,
    };
    String::from_utf8_lossy(body).into_owned()
}

impl Response {
    /// Converts the response that a function returns to API Gateway.
    pub fn of_gateway(response: &Value) -> Self {
        let mut headers = BTreeMap::new();
        for (name, value) in response["headers"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            headers.insert(name.to_ascii_lowercase(), value);
        }
        let body = response["body"].as_str().unwrap_or_default();
        let is_encoded = response["isBase64Encoded"].as_bool().expect("a boolean");
        let bytes = if is_encoded {
            STANDARD.decode(body).expect("base64")
        } else {
            body.as_bytes().to_vec()
        };
        Self {
            body: decoded(&bytes, headers.get("content-encoding")),
            status: response["statusCode"]
                .as_u64()
                .and_then(|status| status.try_into().ok())
                .expect("a status"),
            headers,
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

    /// `X-Cache-Source`, or `absent`.
    pub fn source(&self) -> &str {
        self.header("x-cache-source").unwrap_or("absent")
    }
}
