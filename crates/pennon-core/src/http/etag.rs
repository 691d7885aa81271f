//! Entity tags: the revision, and who asks.

use lambda_http::Body;
use pennon_eval::UserId;
use sha2::{Digest, Sha256};

use crate::hex::hex;
use crate::snapshot::{KeyKind, Revision};

/// Raised when the same flags and the same caller would get another answer than before.
const FORM: u8 = 1;

/// A strong entity tag (RFC 9110, section 8.8.3). Equal tags of one URL mean equal answers, so a
/// match needs no evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    /// The tag of an answer that is the same for everyone.
    #[must_use]
    pub fn of(revision: Revision) -> Self {
        Self(format!("\"{FORM}-{revision}\""))
    }

    /// The tag of an answer for one caller, who may see what keys of this kind may. The id itself does
    /// not show.
    #[must_use]
    pub fn for_user(revision: Revision, kind: KeyKind, user: Option<&UserId>) -> Self {
        let kind = match kind {
            KeyKind::Server => "-s",
            KeyKind::Client => "",
        };
        let user = match user {
            Some(user) => format!("-{}", short(&Sha256::digest(user.as_str().as_bytes()))),
            None => String::new(),
        };
        Self(format!("\"{FORM}-{revision}{kind}{user}\""))
    }

    /// The tag of an evaluation of all flags for one context, by a key of one kind.
    #[must_use]
    pub fn for_context(revision: Revision, kind: KeyKind, digest: &[u8; 32]) -> Self {
        let kind = match kind {
            KeyKind::Server => "s",
            KeyKind::Client => "c",
        };
        Self(format!("\"{FORM}-{revision}-{kind}-{}\"", short(digest)))
    }

    /// The tag of something that admins change, for `If-Match`.
    #[must_use]
    pub fn of_record(revision: i64) -> Self {
        Self(format!("\"{revision}\""))
    }

    /// The same tag for one answer of those that change while nothing else does: rules may look at the
    /// clock.
    #[must_use]
    pub fn with_body(&self, body: &Body) -> Self {
        let digest = Sha256::digest(body);
        let open = self.0.trim_end_matches('"');
        Self(format!("{open}-{}\"", hex(&digest[..16])))
    }

    /// As it stands in a header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an `If-None-Match` header names this tag: in a list, weakly, or with `*`.
    #[must_use]
    pub fn is_named_by(&self, if_none_match: &str) -> bool {
        if_none_match
            .split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.0)
    }
}

/// The first half of a hash: 128 bits tell callers apart.
fn short(digest: &[u8]) -> String {
    hex(&digest[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_takes_lists_weak_tags_and_the_star() {
        let tag = ETag::of(Revision(7));
        for yes in [
            tag.as_str().to_owned(),
            format!("W/{}", tag.as_str()),
            format!("\"x\", {}", tag.as_str()),
            "*".to_owned(),
        ] {
            assert!(tag.is_named_by(&yes), "{yes}");
        }
        for no in ["", "7", "1-7", "\"1-8\"", "\"1-7", "W/\"1-70\""] {
            assert!(!tag.is_named_by(no), "{no}");
        }
    }

    #[test]
    fn another_caller_or_revision_is_another_tag() {
        let user = |id: &str| UserId::parse(id);
        let tags = [
            ETag::for_user(Revision(7), KeyKind::Client, None),
            ETag::for_user(Revision(7), KeyKind::Server, None),
            ETag::for_user(Revision(7), KeyKind::Client, user("a").as_ref()),
            ETag::for_user(Revision(7), KeyKind::Server, user("a").as_ref()),
            ETag::for_user(Revision(7), KeyKind::Client, user("b").as_ref()),
            ETag::for_user(Revision(8), KeyKind::Client, user("a").as_ref()),
        ];
        for (at, one) in tags.iter().enumerate() {
            for other in &tags[at + 1..] {
                assert_ne!(one, other);
            }
        }
    }
}
