//! Which paths are OFREP's.

use crate::http::{PREFIX, decoded};

/// Segments that begin our other routes. What follows them is a name, and a flag may be called
/// `ofrep`.
const OTHERS: [&str; 4] = ["config", "admin", "health", "flags"];
/// A stage or a base path of a custom domain, and `/api`.
const MOST_BEFORE: usize = 2;

/// Where in OFREP a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfrepPath {
    /// The evaluation of all flags.
    Bulk,
    /// The evaluation of the flag with this key.
    Single(String),
    /// Nowhere that the protocol knows.
    Unknown,
}

impl OfrepPath {
    /// Where a path leads, if it is one of OFREP's: `/ofrep/…`, behind `/api` or not, behind the name
    /// of an API Gateway stage or not. An application that ends its base URL with a slash asks for
    /// `//ofrep/…`, so empty segments before `ofrep` do not count.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        let (_, rest) = split(path)?;
        let Some(rest) = rest.strip_prefix("/v1/evaluate/flags") else {
            return Some(Self::Unknown);
        };
        Some(match rest.strip_prefix('/') {
            None if rest.is_empty() => Self::Bulk,
            Some(key) if !key.is_empty() && !key.contains('/') => Self::Single(decoded(key)),
            None | Some(_) => Self::Unknown,
        })
    }

    /// The path without the empty segments that a base URL with a slash at its end brings, when there
    /// are any. API Gateway knows no route by the other name.
    #[must_use]
    pub fn without_empty_segments(path: &str) -> Option<String> {
        let (before, rest) = split(path)?;
        let mut plain: String = before.iter().flat_map(|segment| ["/", segment]).collect();
        plain.push_str("/ofrep");
        plain.push_str(rest);
        (plain != path).then_some(plain)
    }

    /// The canonical path, as the table of routes has it, when this is one of OFREP's.
    pub(crate) fn canonical(path: &str) -> Option<String> {
        let (before, rest) = split(path)?;
        matches!(before.as_slice(), [] | ["api"]).then(|| format!("/ofrep{rest}"))
    }

    /// The flag that the path names.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Single(key) => Some(key),
            Self::Bulk | Self::Unknown => None,
        }
    }
}

/// The segments before `ofrep` and everything after it.
fn split(path: &str) -> Option<(Vec<&str>, &str)> {
    let mut before = Vec::new();
    let mut rest = path;
    loop {
        rest = rest.trim_start_matches('/');
        let (segment, after) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if segment == "ofrep" {
            return Some((before, after));
        }
        if segment.is_empty() || OTHERS.contains(&segment) || before.len() == MOST_BEFORE {
            return None;
        }
        if before.len() == 1 && segment != PREFIX.trim_start_matches('/') {
            return None;
        }
        before.push(segment);
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_recognised_behind_slashes_stages_and_prefixes() {
        for start in [
            "",
            "/",
            "//",
            "/api",
            "//api/",
            "/prod",
            "/prod/",
            "/prod/api",
            "/prod//api/",
        ] {
            let path = |rest: &str| OfrepPath::of(&format!("{start}/ofrep{rest}"));
            assert_eq!(path("/v1/evaluate/flags"), Some(OfrepPath::Bulk), "{start}");
            let single = OfrepPath::Single("a b".to_owned());
            assert_eq!(path("/v1/evaluate/flags/a%20b"), Some(single), "{start}");
            for unknown in [
                "",
                "/",
                "/v2/evaluate/flags",
                "/v1/evaluate/flags/",
                "/v1/evaluate/flags/a/b",
                "/v1/evaluate/flagsx",
            ] {
                assert_eq!(path(unknown), Some(OfrepPath::Unknown), "{start} {unknown}");
            }
        }
    }

    #[test]
    fn other_paths_are_not_ofreps_even_when_a_flag_is_called_so() {
        for path in [
            "/",
            "",
            "/health",
            "/api/config/flags/ofrep",
            "/config/flags/ofrep",
            "/api/admin/flags/ofrep",
            "/admin/flags/ofrep/users",
            "/prod/config/flags/ofrep",
            "/a/b/ofrep/v1/evaluate/flags",
            "/ofrepx",
        ] {
            assert_eq!(OfrepPath::of(path), None, "{path}");
        }
    }

    #[test]
    fn empty_segments_are_taken_out_and_only_they() {
        let plain = "/prod/ofrep/v1/evaluate/flags/a%2Fb";
        for path in [
            "/prod//ofrep/v1/evaluate/flags/a%2Fb",
            "//prod/ofrep/v1/evaluate/flags/a%2Fb",
        ] {
            assert_eq!(
                OfrepPath::without_empty_segments(path).as_deref(),
                Some(plain)
            );
        }
        assert_eq!(OfrepPath::without_empty_segments(plain), None);
        assert_eq!(OfrepPath::without_empty_segments("//config/flags"), None);
    }
}
