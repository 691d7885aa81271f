//! Compresses responses with zstd or gzip for clients that accept it.
//!
//! A small response is sent as it is: compressing it costs more time than its transfer. A compressed response has
//! another `ETag` than the same response without compression (RFC 9110, section 8.8.3.3). [`ETag`](super::ETag) accepts
//! both in `If-None-Match`.

use std::cell::RefCell;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use lambda_http::Body;
use lambda_http::http::{HeaderMap, HeaderValue, StatusCode, header};

use zstd::bulk::Compressor;

use super::reply::{Response, base64_size, with_added_vary, with_header};
use super::request::Request;
use super::route::Endpoint;
use crate::wire_size::on_the_wire;

/// Compresses the response to a request if the client accepts it, as the middleware does. For handlers that check the
/// size of what is sent, after all headers that concern the body are set.
#[must_use]
pub fn compressed(response: Response, request: &Request) -> Response {
    let is_admin = request.route().is_some_and(Endpoint::is_admin);
    AcceptedCompression::of(&request.incoming().headers, is_admin).apply(response)
}

/// Smaller bodies are sent as they are: they fit into one packet.
const MIN_SIZE: usize = 1_024;
/// A header without name, time and flags (RFC 1952, section 2.3).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// Level 3, the default of zstd, takes up to half more time and makes responses at most 2 % smaller (docs/performance.md).
const ZSTD_LEVEL: i32 = 1;

thread_local! {
    /// Kept, because its tables take 300 kB: their allocation would cost more than the compression of most responses.
    static GZIP: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
    /// Kept for the same reason. `None` if it could not be created.
    static ZSTD: RefCell<Option<Compressor<'static>>> = RefCell::new(Compressor::new(ZSTD_LEVEL).ok());
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Zstd,
    Gzip,
}

impl Coding {
    /// If a client likes both equally, it gets the first: zstd takes about half the time of gzip or less, and large
    /// documents are a fifth smaller (docs/performance.md).
    pub(super) const ALL: [Self; 2] = [Self::Zstd, Self::Gzip];

    /// The name in `Accept-Encoding` and `Content-Encoding`.
    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// The suffix of the tag of a response in this coding.
    pub(super) fn tag_suffix(self) -> &'static str {
        match self {
            Self::Zstd => "-zstd\"",
            Self::Gzip => "-gzip\"",
        }
    }

    /// The weight in `Accept-Encoding`, by name or as `*`; 0 without either.
    fn weight_in(self, header: &str) -> f32 {
        let weight = weight_of(header, self.name()).or_else(|| weight_of(header, "*"));
        weight.unwrap_or(0.0)
    }

    /// Compresses bytes; `None` if the compressor fails, which the caller treats like bytes that do not become smaller.
    fn compress(self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Zstd => ZSTD.with_borrow_mut(|zstd| zstd.as_mut()?.compress(bytes).ok()),
            Self::Gzip => gzip(bytes),
        }
    }
}

/// Whether and how to compress the response to a request.
#[derive(Debug, Clone)]
pub struct AcceptedCompression {
    /// The coding that the client prefers; `None` for no compression.
    best: Option<Coding>,
    /// The tags of responses that the client has.
    held: String,
    is_admin: bool,
}

impl AcceptedCompression {
    /// Reads the headers of a request. `is_admin` says whether it has an admin route: tags of these routes name
    /// states for `If-Match`, so responses with a tag stay as they are.
    #[must_use]
    pub fn of(headers: &HeaderMap, is_admin: bool) -> Self {
        let texts = |name| {
            let values = headers.get_all(name).iter();
            let values = values.filter_map(|value| value.to_str().ok());
            values.collect::<Vec<_>>().join(",")
        };
        Self {
            best: best_coding(&texts(header::ACCEPT_ENCODING)),
            held: texts(header::IF_NONE_MATCH),
            is_admin,
        }
    }

    /// Compresses a response if the client accepts it and it becomes smaller. A 304 gets the tag that the client has.
    #[must_use]
    pub fn apply(&self, mut response: Response) -> Response {
        if response.status() == StatusCode::NOT_MODIFIED && !self.is_admin {
            let mut tags = Coding::ALL
                .iter()
                .filter_map(|coding| tag_of(&response, *coding));
            if let Some(tag) = tags.find(|tag| self.held.contains(tag)) {
                response = with_header(response, "etag", &tag);
            }
            return with_added_vary(response, "Accept-Encoding");
        }
        let Body::Text(text) = response.body() else {
            return response;
        };
        if text.len() < MIN_SIZE || self.is_admin && response.headers().contains_key(header::ETAG) {
            return response;
        }
        if let Some(coding) = self.best
            && let Some(compressed) = coding.compress(text.as_bytes())
            && base64_size(compressed.len()) < on_the_wire(text.as_bytes())
        {
            *response.body_mut() = Body::Binary(compressed);
            let name = HeaderValue::from_static(coding.name());
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, name);
            if let Some(tag) = tag_of(&response, coding) {
                response = with_header(response, "etag", &tag);
            }
        }
        with_added_vary(response, "Accept-Encoding")
    }
}

/// The tag of a response after compression with this coding. `None` for a response without a tag.
fn tag_of(response: &Response, coding: Coding) -> Option<String> {
    let tag = response.headers().get(header::ETAG)?.to_str().ok()?;
    let open = tag.strip_suffix('"')?;
    Some(format!("{open}{}", coding.tag_suffix()))
}

fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut checksum = Crc::new();
    checksum.update(bytes);
    let mut output = Vec::with_capacity(bytes.len() / 2 + 64);
    output.extend_from_slice(&GZIP_HEADER);
    GZIP.with_borrow_mut(|compressor| {
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

/// The coding with the highest weight in `Accept-Encoding` (RFC 9110, section 12.5.3). `None` if the header has none of
/// ours, or `identity` with a higher weight.
fn best_coding(header: &str) -> Option<Coding> {
    let mut best = None;
    let mut highest = weight_of(header, "identity").unwrap_or(0.0);
    for coding in Coding::ALL {
        let weight = coding.weight_in(header);
        if weight > highest || best.is_none() && weight > 0.0 && weight >= highest {
            (best, highest) = (Some(coding), weight);
        }
    }
    best
}

/// Whether `Accept-Encoding` has gzip, by name or as `*`, and not with the weight 0.
#[must_use]
pub fn accepts_gzip(header: &str) -> bool {
    Coding::Gzip.weight_in(header) > 0.0
}

/// The weight of a name in `Accept-Encoding`, 0 if it cannot be parsed; `None` without the name.
fn weight_of(header: &str, name: &str) -> Option<f32> {
    header.split(',').find_map(|item| {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        if !coding.trim().eq_ignore_ascii_case(name) {
            return None;
        }
        let weight = match weight.trim().split_once('=') {
            Some((name, weight)) if name.eq_ignore_ascii_case("q") => weight,
            Some(_) | None => "1",
        };
        Some(weight.parse().unwrap_or(0.0))
    })
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
        // `noise` fills the output of the compressor more than once.
        let numbers = (0..40_000_u32).map(|number| number.wrapping_mul(2_654_435_761));
        let noise = numbers
            .map(|number| format!("{number:x}"))
            .collect::<Vec<_>>()
            .concat();
        for (accepted, name) in [("br, gzip", "gzip"), ("gzip, zstd", "zstd")] {
            let compression =
                AcceptedCompression::of(&request(&[("accept-encoding", accepted)]), false);
            for text in ["{\"flag\":true},".repeat(500), noise.clone()] {
                for _ in 0..2 {
                    let sent = compression.apply(response(&text));
                    assert!(matches!(sent.body(), Body::Binary(_)));
                    assert!(sent.body().len() < text.len());
                    let body = &**sent.body();
                    let mut plain = Vec::new();
                    match name {
                        "zstd" => zstd::Decoder::new(body)
                            .expect("a frame")
                            .read_to_end(&mut plain),
                        _ => GzDecoder::new(body).read_to_end(&mut plain),
                    }
                    .expect("the compressed bytes");
                    assert!(plain == text.as_bytes());
                    assert_eq!(header(&sent, "content-encoding"), name);
                    assert_eq!(header(&sent, "etag"), format!("\"1-7-{name}\""));
                    let vary = "Authorization, X-API-Key, Accept-Encoding";
                    assert_eq!(header(&sent, "vary"), vary);
                }
            }
        }
    }

    #[test]
    fn small_or_tagged_admin_responses_and_those_to_clients_without_compression_stay_as_they_are() {
        let large = "x".repeat(MIN_SIZE);
        let gzip = request(&[("accept-encoding", "gzip")]);
        let none = request(&[]);
        for (headers, is_admin, text, vary) in [
            (&gzip, false, "x".repeat(MIN_SIZE - 1), ""),
            (&none, false, large.clone(), ", Accept-Encoding"),
            // A response of an admin route, whose tag is for `If-Match`.
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
        for (sent, answered) in [
            ("\"1-7-gzip\"", "\"1-7-gzip\""),
            ("\"1-7-zstd\"", "\"1-7-zstd\""),
            ("\"1-7\"", "\"1-7\""),
            ("\"1-6-gzip\", \"1-7\"", "\"1-7\""),
            ("\"1-6-zstd\", \"1-7-gzip\"", "\"1-7-gzip\""),
        ] {
            let headers = request(&[("accept-encoding", "gzip, zstd"), ("if-none-match", sent)]);
            let mut unchanged = response("");
            *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
            let unchanged = AcceptedCompression::of(&headers, false).apply(unchanged);
            assert_eq!(header(&unchanged, "etag"), answered);
            let vary = "Authorization, X-API-Key, Accept-Encoding";
            assert_eq!(header(&unchanged, "vary"), vary);
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
            "gzip; Q=0",
            "*, gzip;q=0.0",
            "*;q=0",
            "gzip;q=x",
            "gzipped",
        ] {
            assert!(!accepts_gzip(no), "{no}");
        }
    }

    #[test]
    fn the_coding_with_the_highest_weight_is_sent() {
        for (header, expected) in [
            ("zstd", Some(Coding::Zstd)),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("*", Some(Coding::Zstd)),
            ("gzip;q=1.0, zstd;q=0.5", Some(Coding::Gzip)),
            ("ZSTD;q=0.5, gzip; q=0.4", Some(Coding::Zstd)),
            ("zstd;q=0, *", Some(Coding::Gzip)),
            ("gzip;q=0.5, *;q=0.8", Some(Coding::Zstd)),
            ("identity;q=0.5, gzip;q=0.5", Some(Coding::Gzip)),
            ("identity;q=0, zstd;q=0.001", Some(Coding::Zstd)),
            ("identity, gzip;q=0.5, zstd;q=0.9", None),
            ("br, deflate", None),
            ("*;q=0", None),
            ("zstandard, gzip;q=x", None),
            ("", None),
        ] {
            assert_eq!(best_coding(header), expected, "{header}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{for_all, text};

    use super::*;

    #[test]
    fn no_header_selects_a_coding_that_another_one_outweighs() {
        let examples = [
            "gzip, zstd",
            "*;q=0.5, identity;q=0",
            "zstd;q=1e9, gzip;q=NaN",
        ];
        let words = &["gzip", "zstd", "*", "identity", ";q=", ",", "0", "-", "inf"];
        for_all(&text(examples.map(str::to_owned), words), |header| {
            let Some(best) = best_coding(&header) else {
                return;
            };
            let weight = best.weight_in(&header);
            assert!(weight > 0.0, "{header}");
            let outweighs = |coding: Coding| coding.weight_in(&header) > weight;
            assert!(!Coding::ALL.into_iter().any(outweighs), "{header}");
        });
    }
}
