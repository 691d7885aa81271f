//! The web origins that CORS allows.

use url::Url;

use super::address::is_loopback;

/// Origins whose pages may read responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// All origins.
    Any,
    /// These origins, each as browsers write it: `https://app.example.com`.
    Named(Vec<String>),
}

/// The allowed origins by kind of route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsConfig {
    /// `CORS_ORIGINS`, `*` by default: for all routes except admin routes and the console.
    pub public: Origins,
    /// `ADMIN_CORS_ORIGINS`, none by default: for admin routes.
    pub admin: Vec<String>,
}

/// Parses an origin, which must be written as browsers write it: it is compared byte by byte, because lenient
/// comparison (suffixes, patterns) would also allow origins of strangers.
///
/// # Errors
/// The rule that the origin breaks, for the log.
pub(super) fn parse_origin(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("an origin begins with https:// or http://".to_owned());
    }
    let origin = url.origin().ascii_serialization();
    if origin == text {
        Ok(origin)
    } else {
        Err(format!("browsers write it as {origin}"))
    }
}

/// Like [`parse_origin`], for admin routes: a page loaded over plain http may have been modified in transit.
///
/// # Errors
/// The rule that the origin breaks, for the log.
pub(super) fn parse_admin_origin(text: &str) -> Result<String, String> {
    let origin = parse_origin(text)?;
    let url = Url::parse(&origin).map_err(|error| error.to_string())?;
    if url.scheme() == "https" || is_loopback(&url) {
        Ok(origin)
    } else {
        Err(
            "admin routes accept only https:// origins, and http:// origins of this machine"
                .to_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_must_be_written_as_browsers_write_it() {
        for good in [
            "https://app.example.com",
            "https://app.example.com:8443",
            "http://localhost:3000",
            "http://[::1]:3000",
            "https://xn--bcher-kva.example",
        ] {
            assert_eq!(parse_origin(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "*",
            "null",
            "app.example.com",
            "https://",
            "https://app.example.com/",
            "https://app.example.com/path",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://App.example.com",
            "HTTPS://app.example.com",
            "https://user@app.example.com",
            "https://*.example.com/",
            "https://app.example.com?x",
            "https://app.example.com#x",
            " https://app.example.com",
            "https://bücher.example",
            "file:///index.html",
            "chrome-extension://abc",
        ] {
            assert!(parse_origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pages_loaded_over_plain_http_may_not_use_admin_routes() {
        for good in [
            "https://admin.example.com",
            "http://localhost:3000",
            "http://127.0.0.1:3000",
        ] {
            assert!(parse_admin_origin(good).is_ok(), "{good}");
        }
        for bad in ["http://admin.example.com", "http://localhost.example.com"] {
            assert!(parse_admin_origin(bad).is_err(), "{bad}");
        }
    }
}
