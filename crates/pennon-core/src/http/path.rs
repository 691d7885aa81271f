//! Recognises the paths of OFREP.

use crate::http::{PREFIX, decoded};

/// A path with one of these segments before `ofrep` is not a path of OFREP: `ofrep` is then the key of a flag or
/// another name.
const OTHER_ROUTES: [&str; 4] = ["config", "admin", "health", "flags"];
/// Limit on the segments before `ofrep`: a stage or the base path of a custom domain, and `/api`.
const MAX_PREFIX_SEGMENTS: usize = 2;

/// A path of OFREP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfrepPath {
    /// The evaluation of all flags.
    Bulk,
    /// The evaluation of the flag with this key.
    Single(String),
    /// A path that the protocol does not define.
    Unknown,
}

impl OfrepPath {
    /// Parses a path of OFREP: `/ofrep/…`, optionally after `/api` and after an API Gateway stage. Empty segments
    /// before `ofrep` are ignored, because a client whose base URL ends with a slash requests `//ofrep/…`.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        let (_, rest) = split(path)?;
        let Some(rest) = rest.strip_prefix("/v1/evaluate/flags") else {
            return Some(Self::Unknown);
        };
        Some(match rest.strip_prefix('/') {
            None if rest.is_empty() => Self::Bulk,
            Some(key) if !key.is_empty() && !key.contains('/') => {
                decoded(key).map_or(Self::Unknown, Self::Single)
            }
            None | Some(_) => Self::Unknown,
        })
    }

    /// The path without empty segments before `ofrep`, if it has any. API Gateway does not route a path with empty
    /// segments.
    #[must_use]
    pub fn without_empty_segments(path: &str) -> Option<String> {
        let (before, rest) = split(path)?;
        let mut plain: String = before.iter().flat_map(|segment| ["/", segment]).collect();
        plain.push_str("/ofrep");
        plain.push_str(rest);
        (plain != path).then_some(plain)
    }

    /// The path as in the table of routes, if it is a path of OFREP without a stage.
    pub(crate) fn canonical(path: &str) -> Option<String> {
        let (before, rest) = split(path)?;
        matches!(before.as_slice(), [] | ["api"]).then(|| format!("/ofrep{rest}"))
    }

    /// The key of the flag in the path.
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
        if segment.is_empty()
            || OTHER_ROUTES.contains(&segment)
            || before.len() == MAX_PREFIX_SEGMENTS
        {
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
    fn a_path_is_recognised_after_slashes_stages_and_prefixes() {
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
                "/v1/evaluate/flags/%FF",
                "/v1/evaluate/flagsx",
            ] {
                assert_eq!(path(unknown), Some(OfrepPath::Unknown), "{start} {unknown}");
            }
        }
    }

    #[test]
    fn other_paths_are_not_recognised_even_if_they_name_a_flag_called_ofrep() {
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
    fn only_empty_segments_are_removed() {
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
