//! `GET /console` and everything below it: the web console, whose files are part of this program.
//!
//! It runs outside the VPC, without secrets, Redis or database. The scripts of the console call the admin routes, which
//! decide who may do what.

use std::io::Read;
use std::sync::{Arc, LazyLock};

use flate2::read::GzDecoder;
use lambda_http::Body;
use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, ETag, Request, Response};
use pennon_core::token::Tokens;
use serde_json::json;
use url::Url;

/// The page. Its scripts show what belongs to the address.
const INDEX: &str = include_str!("../../console/dist/index.html");
/// The files beside the page: name, content type, and the contents that `build.rs` has compressed.
static FILES: &[(&str, &str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/console_files.rs"));
/// The tags of [`FILES`]: computed once, when the first file is requested.
static TAGS: LazyLock<Vec<ETag>> = LazyLock::new(|| {
    FILES
        .iter()
        .map(|(.., bytes)| ETag::of_content(bytes))
        .collect()
});

/// The environments that the console marks as production.
const PRODUCTION: [&str; 1] = ["production"];

/// Returns a file of the console, its configuration, or the page for all other addresses.
///
/// # Errors
/// [`Error::RouteNotFound`] for an unknown file.
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let name = request.parameter("proxy");
    if name == "config.json" {
        return Ok(config(&app).await);
    }
    if let Some(at) = FILES.iter().position(|(known, ..)| *known == name) {
        return file(at, &request);
    }
    if is_file(name) {
        return Err(Error::RouteNotFound);
    }
    Ok(page(&app, &request).await)
}

/// Whether the name is that of a file and not a page: a flag's key may contain a dot, but has an environment before it.
fn is_file(name: &str) -> bool {
    !name.contains('/') && name.contains('.')
}

/// The issuer and the client with which people sign in, if both are configured.
fn issuer(app: &App) -> Option<(&Tokens, &str)> {
    Some((
        app.tokens.as_ref()?,
        app.config.console.client_id.as_deref()?,
    ))
}

/// `config.json`: how the scripts sign in. Without an issuer and a client, they ask for a token.
async fn config(app: &App) -> Response {
    let Some((tokens, client_id)) = issuer(app) else {
        let body = json!({ "mode": "token", "production": PRODUCTION });
        return http::json(StatusCode::OK, &body);
    };
    let Some(endpoints) = tokens.sign_in_endpoints().await else {
        let body = json!({
            "error": "Service unavailable",
            "message": format!("The issuer {} cannot be reached; try again in a moment", tokens.issuer()),
        });
        let response = http::json(StatusCode::SERVICE_UNAVAILABLE, &body);
        return http::with_header(response, "retry-after", "10");
    };
    let body = json!({
        "mode": "oidc",
        "issuer": tokens.issuer(),
        "clientId": client_id,
        "authorizationEndpoint": endpoints.authorization.as_str(),
        "tokenEndpoint": endpoints.token.as_str(),
        "endSessionEndpoint": endpoints.end_session.as_ref().map(Url::as_str),
        "scope": app.config.console.scope,
        "audience": app.config.console.audience,
        "production": PRODUCTION,
    });
    http::json(StatusCode::OK, &body)
}

/// The page. Its files are named by absolute paths, because the number of segments below `/console` is not known: API
/// Gateway decodes the path, and a flag's key may contain a slash.
async fn page(app: &App, request: &Request) -> Response {
    let folder = format!("=\"{}/console/", safe_base_path(request.base_path()));
    let text = INDEX.replace("=\"./", &folder);
    let endpoints = match issuer(app) {
        Some((tokens, _)) => tokens.sign_in_endpoints().await,
        None => None,
    };
    let origin = endpoints.map(|endpoints| endpoints.token.origin().ascii_serialization());
    let policy = http::content_security_policy(origin.as_deref());
    // The tag covers the policy, because browsers keep the headers of a page that has not changed.
    let tag = ETag::of_content(format!("{policy}\n{text}").as_bytes());
    let response = if request.has_current(&tag) {
        http::not_modified(&tag)
    } else {
        let response = Response::new(Body::Text(text));
        let response = http::with_header(response, "content-type", "text/html; charset=utf-8");
        http::with_header(response, "etag", tag.as_str())
    };
    http::with_header(response, "content-security-policy", &policy)
}

/// The base path, or an empty one if it might end the attribute or name another host.
fn safe_base_path(base_path: &str) -> &str {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if base_path.bytes().all(is_safe) && !base_path.contains("//") && !base_path.ends_with('/') {
        base_path
    } else {
        ""
    }
}

fn file(at: usize, request: &Request) -> Result<Response, Error> {
    let (_, kind, compressed) = FILES[at];
    let accepts_gzip = request
        .header("accept-encoding")
        .is_some_and(http::accepts_gzip);
    let (tag, body) = if accepts_gzip {
        (TAGS[at].clone(), compressed.to_vec())
    } else {
        let mut plain = Vec::new();
        let read = GzDecoder::new(compressed).read_to_end(&mut plain);
        read.map_err(|error| Error::Internal(error.to_string()))?;
        (ETag::of_content(&plain), plain)
    };
    let response = if request.has_current(&tag) {
        http::not_modified(&tag)
    } else {
        let response = Response::new(Body::Binary(body));
        let response = http::with_header(response, "content-type", kind);
        let response = http::with_header(response, "etag", tag.as_str());
        if accepts_gzip {
            http::with_header(response, "content-encoding", "gzip")
        } else {
            response
        }
    };
    Ok(http::with_header(response, "vary", "Accept-Encoding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_within_their_budgets() {
        for (name, _, compressed) in FILES {
            let budget = match name.rsplit('.').next() {
                Some("js") => 45_000,
                Some("css") => 10_000,
                _ => continue,
            };
            let size = compressed.len();
            assert!(size <= budget, "{name} has {size} bytes: remove something");
        }
    }

    #[test]
    fn a_base_path_cannot_end_the_attribute_or_name_another_host() {
        for safe in ["", "/prod", "/a/b-c_d.e~f"] {
            assert_eq!(safe_base_path(safe), safe);
        }
        for other in [
            "//evil.example",
            "/",
            "/a/",
            "/a//b",
            "/a\"b",
            "/<b>",
            "/a b",
            "/\\evil",
            "/ä",
        ] {
            assert_eq!(safe_base_path(other), "", "{other}");
        }
    }
}
