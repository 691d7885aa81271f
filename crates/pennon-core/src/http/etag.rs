//! Entity tags, made from the revision and the caller.

use lambda_http::Body;
use pennon_eval::{EvaluationDefaults, UserId};
use sha2::{Digest, Sha256};

use super::compression::Coding;
use crate::environment::Environment;
use crate::hex::hex;
use crate::key_kind::KeyKind;
use crate::snapshot::Revision;

/// Increase it when a release changes the response for the same flags and caller.
const FORMAT: u8 = 3;

/// A strong entity tag (RFC 9110, section 8.8.3). Equal tags of a URL mean equal responses, so a matching request
/// needs no evaluation. Tags of flags name the environment, because the key of a caller can choose it at the same
/// URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    /// The tag of a response that is equal for all callers.
    #[must_use]
    pub fn of(revision: Revision, environment: &Environment) -> Self {
        Self(format!("\"{FORMAT}-{environment}-{revision}\""))
    }

    /// The tag of a response for one user, with the visibility of keys of this kind. It contains a hash of the user
    /// id, not the id.
    #[must_use]
    pub fn for_user(
        revision: Revision,
        environment: &Environment,
        kind: KeyKind,
        user: Option<&UserId>,
    ) -> Self {
        let kind = match kind {
            KeyKind::Server | KeyKind::Sync => "-s",
            KeyKind::Client => "",
        };
        let user = match user {
            Some(user) => format!("-{}", short(&Sha256::digest(user.as_str().as_bytes()))),
            None => String::new(),
        };
        Self(format!("\"{FORMAT}-{environment}-{revision}{kind}{user}\""))
    }

    /// The tag of an evaluation of all flags for a context, with the visibility of keys of this kind.
    #[must_use]
    pub fn for_context(
        revision: Revision,
        environment: &Environment,
        kind: KeyKind,
        digest: &[u8; 32],
    ) -> Self {
        let kind = match kind {
            KeyKind::Server | KeyKind::Sync => "s",
            KeyKind::Client => "c",
        };
        let digest = short(digest);
        Self(format!(
            "\"{FORMAT}-{environment}-{revision}-{kind}-{digest}\""
        ))
    }

    /// The tag of a document with all flags of an environment, in the format with this name. It names everything that
    /// the document depends on: a key for another environment has the same URL, and the defaults of the installation
    /// decide which flags a document for flagd contains.
    #[must_use]
    pub fn of_document(
        revision: Revision,
        environment: &Environment,
        defaults: EvaluationDefaults,
        format: &str,
    ) -> Self {
        let defaults = defaults.name();
        Self(format!(
            "\"{FORMAT}-{revision}-{environment}-{defaults}-{format}\""
        ))
    }

    /// The tag of an item of the admin API, for `If-Match`.
    #[must_use]
    pub fn of_record(revision: i64) -> Self {
        Self(format!("\"{revision}\""))
    }

    /// Parses [`Self::of_record`]. `None` for any other text, such as a weak tag or `"+1"`.
    #[must_use]
    pub fn parse_record(tag: &str) -> Option<i64> {
        let inner = tag.trim_ascii().strip_prefix('"')?.strip_suffix('"')?;
        let revision = inner.parse().ok()?;
        (Self::of_record(revision).0 == tag.trim_ascii()).then_some(revision)
    }

    /// The tag of a response with these bytes, for all callers.
    #[must_use]
    pub fn of_content(bytes: &[u8]) -> Self {
        Self(format!("\"{}\"", short(&Sha256::digest(bytes))))
    }

    /// Extends the tag by a hash of the body, for responses that change over time.
    #[must_use]
    pub fn with_body(&self, body: &Body) -> Self {
        let digest = Sha256::digest(body);
        let open = self.0.trim_end_matches('"');
        Self(format!("{open}-{}\"", hex(&digest[..16])))
    }

    /// The text for a header, with quotation marks.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an `If-None-Match` header matches this tag: by weak comparison, in a list, or as `*`. The tag of the
    /// compressed response matches too.
    #[must_use]
    pub fn matches(&self, if_none_match: &str) -> bool {
        let is_own = |tag: &str| {
            let mut codings = Coding::ALL.into_iter();
            let open = codings.find_map(|coding| tag.strip_suffix(coding.tag_suffix()));
            match open {
                Some(open) => self.0.strip_suffix('"') == Some(open),
                None => tag == self.0,
            }
        };
        if_none_match
            .split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || is_own(tag.strip_prefix("W/").unwrap_or(tag)))
    }
}

/// The first half of a hash. 128 bits suffice to distinguish callers.
fn short(digest: &[u8]) -> String {
    hex(&digest[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_may_be_a_list_a_weak_tag_or_a_star() {
        let tag = ETag::of(Revision(7), &Environment::production());
        for yes in [
            tag.as_str().to_owned(),
            format!("W/{}", tag.as_str()),
            format!("\"x\", {}", tag.as_str()),
            "\"3-production-7-gzip\"".to_owned(),
            "W/\"3-production-7-gzip\", \"x\"".to_owned(),
            "\"3-production-7-zstd\"".to_owned(),
            "*".to_owned(),
        ] {
            assert!(tag.matches(&yes), "{yes}");
        }
        for no in [
            "",
            "7",
            "3-production-7",
            "\"3-production-8\"",
            "\"3-production-7",
            "W/\"3-production-70\"",
            "\"3-production-8-gzip\"",
            "\"3-production-8-zstd\"",
            "\"3-production-7-br\"",
        ] {
            assert!(!tag.matches(no), "{no}");
        }
    }

    #[test]
    fn the_tag_of_a_document_names_all_that_it_depends_on() {
        let (production, defaults) = (Environment::production(), EvaluationDefaults::New);
        let staging = Environment::parse("staging").expect("a name");
        let existing = EvaluationDefaults::Existing;
        let tags = [
            ETag::of_document(Revision(7), &production, defaults, "flagd"),
            ETag::of_document(Revision(8), &production, defaults, "flagd"),
            ETag::of_document(Revision(7), &staging, defaults, "flagd"),
            ETag::of_document(Revision(7), &production, existing, "flagd"),
            ETag::of_document(Revision(7), &production, defaults, "native"),
        ];
        for (at, one) in tags.iter().enumerate() {
            assert!(!tags[at + 1..].contains(one), "{one:?}");
        }
    }

    #[test]
    fn the_tag_of_a_revision_is_parsed_only_in_the_form_in_which_it_was_sent() {
        let tag = ETag::of_record(7);
        assert_eq!(ETag::parse_record(&format!(" {} ", tag.as_str())), Some(7));
        for text in [
            "\"+7\"",
            "\"07\"",
            "\" 7\"",
            "\"\"",
            "7",
            "W/\"7\"",
            "\"7-gzip\"",
        ] {
            assert_eq!(ETag::parse_record(text), None, "{text}");
        }
    }

    #[test]
    fn the_tag_differs_by_caller_environment_and_revision() {
        let user = |id: &str| UserId::parse(id);
        let production = Environment::production();
        let staging = Environment::parse("staging").expect("a name");
        let tags = [
            ETag::for_user(Revision(7), &production, KeyKind::Client, None),
            ETag::for_user(Revision(7), &staging, KeyKind::Client, None),
            ETag::for_user(Revision(7), &production, KeyKind::Server, None),
            ETag::for_user(
                Revision(7),
                &production,
                KeyKind::Client,
                user("a").as_ref(),
            ),
            ETag::for_user(
                Revision(7),
                &production,
                KeyKind::Server,
                user("a").as_ref(),
            ),
            ETag::for_user(
                Revision(7),
                &production,
                KeyKind::Client,
                user("b").as_ref(),
            ),
            ETag::for_user(
                Revision(8),
                &production,
                KeyKind::Client,
                user("a").as_ref(),
            ),
        ];
        for (at, one) in tags.iter().enumerate() {
            for other in &tags[at + 1..] {
                assert_ne!(one, other);
            }
        }
    }
}
