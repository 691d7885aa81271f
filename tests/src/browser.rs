//! A web page of another origin, as far as CORS decides which requests it may send and which responses it may
//! read: the CORS protocol of the Fetch standard, for requests without credentials.

use std::collections::BTreeMap;

use crate::local::HttpClient;
use crate::response::Response;

/// A page of one origin.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The origin as the browser sends it; `null` in a sandbox or from a file.
    pub origin: &'a str,
}

/// The reason why a browser blocks a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    /// The preflight failed.
    PreflightStatus(u16),
    /// The response, or that to the preflight, does not allow the page's origin.
    Origin,
    /// The preflight does not allow the method.
    Method,
    /// The preflight does not allow this header.
    Header(String),
}

/// Headers that pages may read without `Access-Control-Expose-Headers`.
const READABLE: [&str; 4] = [
    "cache-control",
    "content-length",
    "content-type",
    "last-modified",
];

impl Page<'_> {
    /// Sends a request as a browser does. The response has only the headers that the page may read.
    ///
    /// # Errors
    /// The reason why the browser blocks the request.
    pub async fn fetch(
        &self,
        client: &HttpClient,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Response, Blocked> {
        let unsafe_headers = unsafe_headers(headers);
        if !is_simple(method) || !unsafe_headers.is_empty() {
            let names = unsafe_headers.join(",");
            let mut preflight = vec![
                ("origin", self.origin),
                ("access-control-request-method", method),
            ];
            if !names.is_empty() {
                preflight.push(("access-control-request-headers", &names));
            }
            let answer = client.send("OPTIONS", path, &preflight, "").await;
            self.check_preflight(&answer, method, &unsafe_headers)?;
        }
        let mut all = vec![("origin", self.origin)];
        all.extend_from_slice(headers);
        let answer = client.send(method, path, &all, body).await;
        self.check_origin(&answer)?;
        Ok(readable(answer))
    }

    /// Decides whether a response to `OPTIONS` allows a request.
    ///
    /// # Errors
    /// The reason why the browser blocks the request.
    pub fn check_preflight(
        &self,
        answer: &Response,
        method: &str,
        headers: &[String],
    ) -> Result<(), Blocked> {
        self.check_origin(answer)?;
        if !(200..300).contains(&answer.status) {
            return Err(Blocked::PreflightStatus(answer.status));
        }
        let methods = names(answer, "access-control-allow-methods");
        if !is_simple(method) && !methods.iter().any(|it| it == method) {
            return Err(Blocked::Method);
        }
        let allowed = names(answer, "access-control-allow-headers");
        for header in headers {
            let named = allowed.iter().any(|it| it.eq_ignore_ascii_case(header));
            if !named {
                return Err(Blocked::Header(header.clone()));
            }
        }
        Ok(())
    }

    /// Decides whether the page may read a response.
    ///
    /// # Errors
    /// [`Blocked::Origin`].
    pub fn check_origin(&self, answer: &Response) -> Result<(), Blocked> {
        match answer.header("access-control-allow-origin") {
            Some("*") => Ok(()),
            Some(origin) if origin == self.origin => Ok(()),
            Some(_) | None => Err(Blocked::Origin),
        }
    }
}

fn is_simple(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "POST")
}

/// The names of the headers that require a preflight, in lower case, sorted as browsers do.
fn unsafe_headers(headers: &[(&str, &str)]) -> Vec<String> {
    let simple_types = [
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "text/plain",
    ];
    let needs_preflight = |(name, value): &&(&str, &str)| match name.to_ascii_lowercase().as_str() {
        "accept" | "accept-language" | "content-language" => false,
        "content-type" => !simple_types.contains(value),
        _ => true,
    };
    let names = headers.iter().filter(needs_preflight);
    let mut names: Vec<String> = names.map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort();
    names
}

fn names(answer: &Response, header: &str) -> Vec<String> {
    let value = answer.header(header).unwrap_or_default();
    value
        .split(',')
        .map(|name| name.trim().to_owned())
        .collect()
}

fn readable(answer: Response) -> Response {
    let exposed = names(&answer, "access-control-expose-headers");
    let may_read = |name: &String| {
        READABLE.contains(&name.as_str()) || exposed.iter().any(|it| it.eq_ignore_ascii_case(name))
    };
    let headers: BTreeMap<String, String> = answer
        .headers
        .into_iter()
        .filter(|(name, _)| may_read(name))
        .collect();
    Response { headers, ..answer }
}
