//! Validates the URLs of token issuers and of their endpoints.
//!
//! They are parsed as URLs: a comparison of prefixes would accept `http://127.0.0.1:1@example.com/` as an address
//! of this machine.

use url::{Host, Url};

/// Parses the URL of an issuer: `https://`, or for tests `http://` on this machine.
///
/// # Errors
/// The rule that the URL breaks, for the log.
pub fn parse_issuer(text: &str) -> Result<Url, &'static str> {
    let url = parse(text)?;
    if url.query().is_some() {
        return Err("it has a query");
    }
    if url.scheme() == "https" || is_loopback(&url) {
        Ok(url)
    } else {
        Err("it is not an https:// URL")
    }
}

/// Parses a URL from an issuer's metadata, such as that of its keys. It may be on another host, as Google's keys
/// are. Only an issuer on this machine may name addresses of this machine, and only there `http://` is accepted.
///
/// # Errors
/// The rule that the URL breaks, for the log.
pub fn parse_endpoint(issuer: &Url, text: &str) -> Result<Url, &'static str> {
    let url = parse(text)?;
    match (is_loopback(issuer), is_loopback(&url), url.scheme()) {
        (true, true, _) | (_, false, "https") => Ok(url),
        (false, true, _) => Err("it is an address of this machine, but the issuer is not"),
        (_, false, _) => Err("it is not an https:// URL"),
    }
}

fn parse(text: &str) -> Result<Url, &'static str> {
    // The parser drops tabs and newlines, and reads a backslash as a slash; other parsers would see another URL.
    let is_invalid = |byte: u8| {
        !byte.is_ascii_graphic() || matches!(byte, b'\\' | b'"' | b'<' | b'>' | b'^' | b'`')
    };
    if text.bytes().any(is_invalid) {
        return Err("it has characters that are invalid in a URL");
    }
    if authority(text).is_empty() {
        // The parser would use the first segment of the path as the host.
        return Err("it has no host");
    }
    let url = Url::parse(text).map_err(|_| "it is not a URL")?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err("it is not an https:// URL");
    }
    if !url.username().is_empty() || url.password().is_some() || authority(text).contains('@') {
        return Err("it has user information (an @ before the host)");
    }
    if url.fragment().is_some() {
        return Err("it has a fragment (#)");
    }
    Ok(url)
}

/// The text between `//` and the path. The parser cannot be used, because it drops an empty user name before `@`.
fn authority(text: &str) -> &str {
    let rest = text.split_once("//").map_or("", |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// Whether the host of a URL is this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
        Some(Host::Ipv6(address)) => {
            let mapped = address.to_ipv4_mapped();
            address.is_loopback()
                || address.is_unspecified()
                || mapped.is_some_and(|mapped| mapped.is_loopback() || mapped.is_unspecified())
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_https_or_on_this_machine_and_has_only_a_host_and_a_path() {
        for good in [
            "https://issuer.example.com",
            "https://issuer.example.com/",
            "https://issuer.example.com:8443/realms/one",
            "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_abc",
            "http://127.0.0.1:9000",
            "http://127.1.2.3",
            "http://[::1]:9000",
            "http://localhost:9000/realm",
        ] {
            assert!(parse_issuer(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "issuer.example.com",
            "http://issuer.example.com",
            "http://127.0.0.1:9000@issuer.example.com",
            "http://127.0.0.1:@issuer.example.com/",
            "http://localhost:x@issuer.example.com/",
            "http://127.0.0.1.issuer.example.com",
            "http://localhost.issuer.example.com",
            "https://user@issuer.example.com",
            "https://user:password@issuer.example.com",
            "https://:password@issuer.example.com",
            "https://@issuer.example.com",
            "https://issuer.example.com#fragment",
            "https://issuer.example.com#",
            "https://issuer.example.com?query",
            "https://",
            "https:///path",
            "https://issuer.example.com\\@other.example.com",
            "https://issuer.exam\nple.com",
            " https://issuer.example.com",
            "https://issuer.example.com ",
            "https://bücher.example",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
            "https://issuer.example.com:99999",
        ] {
            assert!(parse_issuer(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_an_issuer_on_this_machine_may_name_addresses_of_this_machine() {
        let public = parse_issuer("https://issuer.example.com").expect("an issuer");
        let local = parse_issuer("http://127.0.0.1:9000").expect("an issuer");
        for (text, from_public, from_local) in [
            ("https://issuer.example.com/keys", true, true),
            ("https://keys.example.org/keys?p=policy", true, true),
            ("http://issuer.example.com/keys", false, false),
            ("http://127.0.0.1:9000/keys", false, true),
            ("http://127.0.0.1:9001/keys", false, true),
            ("https://127.0.0.1/keys", false, true),
            ("https://localhost/keys", false, true),
            ("https://localhost./keys", false, true),
            ("https://[::1]/keys", false, true),
            ("https://[::ffff:127.0.0.1]/keys", false, true),
            ("https://2130706433/keys", false, true),
            ("https://0.0.0.0/keys", false, true),
            (
                "http://127.0.0.1:9000@issuer.example.com/keys",
                false,
                false,
            ),
            ("https://issuer.example.com@127.0.0.1/keys", false, false),
            ("https://user@issuer.example.com/keys", false, false),
            ("https://issuer.example.com/keys#x", false, false),
            ("/keys", false, false),
            ("//issuer.example.com/keys", false, false),
            ("", false, false),
        ] {
            assert_eq!(parse_endpoint(&public, text).is_ok(), from_public, "{text}");
            assert_eq!(parse_endpoint(&local, text).is_ok(), from_local, "{text}");
        }
    }
}
