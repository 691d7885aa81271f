//! Requests of browsers to the console and to admin routes. A page of another site must not use this server, even if
//! the name of the site resolves to this machine (DNS rebinding).
//!
//! Other clients may use any name of this machine for admin routes.

use axum::http::{HeaderMap, HeaderValue, header};
use pennon_core::error::Error;
use url::{Host, Url};

/// Whether a request has a header that browsers add to requests of scripts. Under DNS rebinding, a browser may omit
/// these headers in a `GET`, but the page has no token to send.
pub(crate) fn is_from_script(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site")
}

/// Rejects a request for another host name than that of this server, and one from a page of another origin.
///
/// An IP address is always accepted as a host, because DNS rebinding needs a name. `listen` is the address of this
/// server, and `admin_origins` are those of `ADMIN_CORS_ORIGINS`.
///
/// # Errors
/// [`Error::Invalid`], which names the header.
pub(crate) fn check(
    headers: &HeaderMap,
    listen: &str,
    admin_origins: &[String],
) -> Result<(), Error> {
    // A request without `Host` is not from a browser.
    let Some(host) = only(headers, "Host")? else {
        return Ok(());
    };
    if !is_own(host, listen) {
        let why = format!("{host:?} is not a name of this server; use http://{listen}");
        return Err(Error::invalid_field("Host", why));
    }
    let Some(origin) = only(headers, "Origin")? else {
        return Ok(());
    };
    let without_scheme = ["http://", "https://"]
        .iter()
        .find_map(|scheme| origin.strip_prefix(scheme));
    let is_same = without_scheme.is_some_and(|origin| origin.eq_ignore_ascii_case(host));
    if is_same || admin_origins.iter().any(|named| named == origin) {
        return Ok(());
    }
    let why = format!(
        "The page is from {origin:?}; ADMIN_CORS_ORIGINS lists the origins whose pages may use admin routes"
    );
    Err(Error::invalid_field("Origin", why))
}

/// The value of a header that must not occur twice.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Error> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    let text = value.map(HeaderValue::to_str).transpose();
    match (text, values.next()) {
        (Ok(text), None) => Ok(text),
        (Ok(_) | Err(_), _) => Err(Error::invalid_field(name, "Expected one text")),
    }
}

/// Whether a `Host` is an IP address, `localhost`, or the name at which this server listens.
fn is_own(host: &str, listen: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if !host.bytes().all(is_plain) {
        return false;
    }
    let name = |authority: &str| {
        let url = Url::parse(&format!("http://{authority}")).ok()?;
        Some(match url.host()? {
            Host::Ipv4(_) | Host::Ipv6(_) => None,
            Host::Domain(name) => Some(name.trim_end_matches('.').to_owned()),
        })
    };
    match name(host) {
        Some(None) => true,
        Some(Some(found)) => found == "localhost" || name(listen) == Some(Some(found)),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header"));
        }
        headers
    }

    #[test]
    fn only_names_of_this_server_are_accepted_as_host() {
        for host in [
            "127.0.0.1:9000",
            "localhost:9000",
            "LOCALHOST",
            "localhost.:9000",
            "[::1]:9000",
            "192.168.1.7:8080",
            "flags.internal:9000",
        ] {
            let headers = headers(&[("host", host)]);
            assert!(
                check(&headers, "flags.internal:9000", &[]).is_ok(),
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "evil.example:9000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "evil.example#127.0.0.1",
            "evil.example/127.0.0.1",
            "xlocalhost",
            "",
            ":9000",
        ] {
            let headers = headers(&[("host", host)]);
            assert!(check(&headers, "127.0.0.1:9000", &[]).is_err(), "{host}");
        }
        let twice = headers(&[("host", "127.0.0.1"), ("host", "evil.example")]);
        assert!(check(&twice, "127.0.0.1:9000", &[]).is_err());
        assert!(check(&HeaderMap::new(), "127.0.0.1:9000", &[]).is_ok());
    }

    #[test]
    fn only_this_origin_and_the_configured_ones_are_accepted() {
        let named = ["http://localhost:3000".to_owned()];
        let with =
            |origin: &'static str| headers(&[("host", "127.0.0.1:9000"), ("origin", origin)]);
        for origin in [
            "http://127.0.0.1:9000",
            "https://127.0.0.1:9000",
            "http://localhost:3000",
        ] {
            assert!(
                check(&with(origin), "127.0.0.1:9000", &named).is_ok(),
                "{origin}"
            );
        }
        for origin in [
            "null",
            "http://127.0.0.1",
            "http://127.0.0.1:9001",
            "http://localhost:9000",
            "https://evil.example",
            "http://127.0.0.1:9000.evil.example",
            "127.0.0.1:9000",
        ] {
            assert!(
                check(&with(origin), "127.0.0.1:9000", &named).is_err(),
                "{origin}"
            );
        }
    }
}
