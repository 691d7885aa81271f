//! Compresses responses with gzip for clients that accept it.
//!
//! A small response is sent as it is: compressing it costs more time than its transfer. A compressed response has
//! another `ETag` than the same response without compression (RFC 9110, section 8.8.3.3). [`ETag`](super::ETag) accepts
//! both in `If-None-Match`.

use std::cell::RefCell;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use lambda_http::Body;
use lambda_http::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::reply::{Response, base64_size, with_added_vary, with_header};
use super::request::Request;
use super::route::Endpoint;
use crate::wire_size::on_the_wire;

/// Compresses the response to a request if the client accepts it, as the middleware does with every response. For
/// handlers that check the size of what is sent, after all headers that concern the body are set.
#[must_use]
pub fn compressed(response: Response, request: &Request) -> Response {
    let is_admin = request.route().is_some_and(Endpoint::is_admin);
    AcceptedCompression::of(&request.incoming().headers, is_admin).apply(response)
}

/// Smaller bodies are sent as they are: they fit into one packet.
const MIN_SIZE: usize = 1_024;
/// A header without name, time and flags (RFC 1952, section 2.3).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// What a tag ends with if it is that of a compressed response.
pub(super) const TAG_SUFFIX: &str = "-gzip\"";

thread_local! {
    /// Kept, because its tables take 300 kB: their allocation would cost more than the compression of most responses.
    static COMPRESSOR: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
}

/// Whether to compress the response to a request.
#[derive(Debug, Clone, Copy)]
pub struct AcceptedCompression {
    accepts_gzip: bool,
    had_compressed: bool,
    is_admin: bool,
}

impl AcceptedCompression {
    /// Reads the headers of a request. `is_admin` says whether its route is for admins: the tags of their responses name
    /// states for `If-Match`, so responses with a tag stay as they are.
    #[must_use]
    pub fn of(headers: &HeaderMap, is_admin: bool) -> Self {
        let any = |name, holds: fn(&str) -> bool| {
            let mut values = headers.get_all(name).iter();
            values.any(|value| value.to_str().is_ok_and(holds))
        };
        Self {
            accepts_gzip: any(header::ACCEPT_ENCODING, accepts_gzip),
            had_compressed: any(header::IF_NONE_MATCH, |tags| tags.contains(TAG_SUFFIX)),
            is_admin,
        }
    }

    /// Compresses a response if the client accepts it and it becomes smaller.
    #[must_use]
    pub fn apply(self, mut response: Response) -> Response {
        if response.status() == StatusCode::NOT_MODIFIED && self.had_compressed && !self.is_admin {
            return with_added_vary(with_tag_suffix(response), "Accept-Encoding");
        }
        let Body::Text(text) = response.body() else {
            return response;
        };
        if text.len() < MIN_SIZE || self.is_admin && response.headers().contains_key(header::ETAG) {
            return response;
        }
        if self.accepts_gzip
            && let Some(compressed) = gzip(text.as_bytes())
            && base64_size(compressed.len()) < on_the_wire(text.as_bytes())
        {
            *response.body_mut() = Body::Binary(compressed);
            let gzip = HeaderValue::from_static("gzip");
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, gzip);
            response = with_tag_suffix(response);
        }
        with_added_vary(response, "Accept-Encoding")
    }
}

/// Marks the tag as that of the compressed response.
fn with_tag_suffix(response: Response) -> Response {
    let tag = response.headers().get(header::ETAG);
    let open = tag.and_then(|tag| tag.to_str().ok()?.strip_suffix('"'));
    match open.map(|open| format!("{open}{TAG_SUFFIX}")) {
        Some(tag) => with_header(response, "etag", &tag),
        None => response,
    }
}

/// Compresses bytes; `None` if the compressor fails, which the caller treats like bytes that do not become smaller.
fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut checksum = Crc::new();
    checksum.update(bytes);
    let mut output = Vec::with_capacity(bytes.len() / 2 + 64);
    output.extend_from_slice(&GZIP_HEADER);
    COMPRESSOR.with_borrow_mut(|compressor| {
        compressor.reset();
        loop {
            let read = usize::try_from(compressor.total_in()).ok()?;
            let status =
                compressor.compress_vec(&bytes[read..], &mut output, FlushCompress::Finish);
            match status.ok()? {
                Status::StreamEnd => return Some(()),
                Status::Ok | Status::BufError => output.reserve(bytes.len() / 2 + 64),
            }
        }
    })?;
    output.extend_from_slice(&checksum.sum().to_le_bytes());
    output.extend_from_slice(&checksum.amount().to_le_bytes());
    Some(output)
}

/// Whether `Accept-Encoding` has gzip (RFC 9110, section 12.5.3), by name or as `*`, and not with the weight 0.
#[must_use]
pub fn accepts_gzip(header: &str) -> bool {
    let mut accepted = None;
    for item in header.split(',') {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        let coding = coding.trim();
        let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
        let is_wanted = weight.parse::<f32>().is_ok_and(|weight| weight > 0.0);
        if coding.eq_ignore_ascii_case("gzip") {
            return is_wanted;
        }
        if coding == "*" {
            accepted = Some(is_wanted);
        }
    }
    accepted.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    fn response(text: &str) -> Response {
        let response = Response::new(Body::Text(text.to_owned()));
        let response = with_header(response, "etag", "\"1-7\"");
        with_header(response, "vary", "Authorization, X-API-Key")
    }

    fn request(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let headers = headers.iter().map(|(name, value)| {
            let name = header::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        headers.collect()
    }

    fn header<'r>(response: &'r Response, name: &str) -> &'r str {
        let value = response.headers().get(name);
        value.map_or("", |value| value.to_str().expect("ASCII"))
    }

    #[test]
    fn a_compressed_response_is_the_same_text_with_a_tag_of_its_own() {
        let gzip = AcceptedCompression::of(&request(&[("accept-encoding", "br, gzip")]), false);
        // The second one fills the output of the compressor more than once.
        let numbers = (0..40_000_u32).map(|number| number.wrapping_mul(2_654_435_761));
        let noise = numbers
            .map(|number| format!("{number:x}"))
            .collect::<Vec<_>>()
            .concat();
        for text in ["{\"flag\":true},".repeat(500), noise] {
            for _ in 0..2 {
                let sent = gzip.apply(response(&text));
                assert!(matches!(sent.body(), Body::Binary(_)));
                assert!(sent.body().len() < text.len());
                let mut plain = String::new();
                let read = GzDecoder::new(&**sent.body()).read_to_string(&mut plain);
                assert_eq!(read.expect("gzip"), text.len());
                assert!(plain == text);
                assert_eq!(header(&sent, "content-encoding"), "gzip");
                assert_eq!(header(&sent, "etag"), "\"1-7-gzip\"");
                let vary = "Authorization, X-API-Key, Accept-Encoding";
                assert_eq!(header(&sent, "vary"), vary);
            }
        }
    }

    #[test]
    fn small_responses_and_those_to_other_clients_stay_as_they_are() {
        let large = "x".repeat(MIN_SIZE);
        let gzip = request(&[("accept-encoding", "gzip")]);
        let none = request(&[]);
        for (headers, is_admin, text, vary) in [
            (&gzip, false, "x".repeat(MIN_SIZE - 1), ""),
            (&none, false, large.clone(), ", Accept-Encoding"),
            // Its tag is for `If-Match`.
            (&gzip, true, large, ""),
        ] {
            let sent = AcceptedCompression::of(headers, is_admin).apply(response(&text));
            assert!(matches!(sent.body(), Body::Text(sent) if *sent == text));
            assert_eq!(header(&sent, "content-encoding"), "");
            assert_eq!(header(&sent, "etag"), "\"1-7\"");
            let expected = format!("Authorization, X-API-Key{vary}");
            assert_eq!(header(&sent, "vary"), expected);
        }
        let list = Response::new(Body::Text("x".repeat(MIN_SIZE)));
        let sent = AcceptedCompression::of(&gzip, true).apply(list);
        assert_eq!(header(&sent, "content-encoding"), "gzip");
    }

    #[test]
    fn an_unchanged_response_has_the_tag_that_the_client_sent() {
        for (sent, expected) in [("\"1-7-gzip\"", "\"1-7-gzip\""), ("\"1-7\"", "\"1-7\"")] {
            let headers = request(&[("accept-encoding", "gzip"), ("if-none-match", sent)]);
            let mut unchanged = response("");
            *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
            let unchanged = AcceptedCompression::of(&headers, false).apply(unchanged);
            assert_eq!(header(&unchanged, "etag"), expected);
        }
    }

    #[test]
    fn gzip_is_sent_only_to_clients_that_accept_it() {
        for yes in [
            "gzip",
            "br, GZIP;q=0.5",
            "*",
            "deflate, gzip, br, zstd",
            "*;q=0, gzip",
        ] {
            assert!(accepts_gzip(yes), "{yes}");
        }
        for no in [
            "",
            "br",
            "identity",
            "gzip;q=0",
            "*, gzip;q=0.0",
            "*;q=0",
            "gzip;q=x",
            "gzipped",
        ] {
            assert!(!accepts_gzip(no), "{no}");
        }
    }
}
