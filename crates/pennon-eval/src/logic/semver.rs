//! `sem_ver`: compares versions (semver.org). A leading `v` and missing parts are accepted: `v1` is `1.0.0`.

use std::cmp::Ordering;

use super::number::trim;

/// The maximal length of a version, from node-semver.
const MAX_LENGTH: usize = 256;

/// The parts of a version that matter for comparisons.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Version<'a> {
    major: &'a str,
    minor: &'a str,
    patch: &'a str,
    /// Empty when the version is a release.
    pre: &'a str,
}

/// The relation of two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    NotEqual,
    Below,
    AtMost,
    Above,
    AtLeast,
    SameMajor,
    SameMinor,
}

impl Relation {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "=" => Self::Equal,
            "!=" => Self::NotEqual,
            "<" => Self::Below,
            "<=" => Self::AtMost,
            ">" => Self::Above,
            ">=" => Self::AtLeast,
            "^" => Self::SameMajor,
            "~" => Self::SameMinor,
            _ => return None,
        })
    }

    pub(super) fn holds(self, a: &Version<'_>, b: &Version<'_>) -> bool {
        match self {
            Self::Equal => a.compare(b).is_eq(),
            Self::NotEqual => a.compare(b).is_ne(),
            Self::Below => a.compare(b).is_lt(),
            Self::AtMost => a.compare(b).is_le(),
            Self::Above => a.compare(b).is_gt(),
            Self::AtLeast => a.compare(b).is_ge(),
            Self::SameMajor => a.major == b.major,
            Self::SameMinor => a.major == b.major && a.minor == b.minor,
        }
    }
}

impl<'a> Version<'a> {
    /// Accepts the same texts as flagd's JavaScript engine: up to two `v` before a complete version (the second may be
    /// a `=`), one before an incomplete version, and white space around a complete version.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let complete = trim(text);
        if complete.len() > MAX_LENGTH {
            return None;
        }
        let complete = complete.strip_prefix(['v', '=']).unwrap_or(complete);
        Self::parse_complete(complete).or_else(|| Self::parse_beginning(text))
    }

    /// `1.2.3`, with or without a pre-release and a build.
    pub(super) fn parse_complete(text: &'a str) -> Option<Self> {
        let (text, build) = match text.split_once('+') {
            Some((text, build)) => (text, Some(build)),
            None => (text, None),
        };
        let (core, pre) = match text.split_once('-') {
            Some((core, pre)) => (core, Some(pre)),
            None => (text, None),
        };
        let good = pre
            .is_none_or(|pre| pre.split('.').all(|part| is_word(part) && !is_padded(part)))
            && build.is_none_or(|build| build.split('.').all(is_word));
        let (major, rest) = core.split_once('.')?;
        let (minor, patch) = rest.split_once('.')?;
        let version = Self {
            major,
            minor,
            patch,
            pre: pre.unwrap_or(""),
        };
        (good && version.has_numbers()).then_some(version)
    }

    /// `1` or `1.2`.
    fn parse_beginning(text: &'a str) -> Option<Self> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        let version = Self {
            major,
            minor,
            patch: "0",
            pre: "",
        };
        version.has_numbers().then_some(version)
    }

    fn has_numbers(&self) -> bool {
        [self.major, self.minor, self.patch]
            .into_iter()
            .all(is_number)
    }

    fn compare(&self, other: &Self) -> Ordering {
        numbers(self.major, other.major)
            .then_with(|| numbers(self.minor, other.minor))
            .then_with(|| numbers(self.patch, other.patch))
            .then_with(|| match (self.pre, other.pre) {
                ("", "") => Ordering::Equal,
                ("", _) => Ordering::Greater,
                (_, "") => Ordering::Less,
                (a, b) => pre_releases(a, b),
            })
    }
}

fn pre_releases(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => match (is_digits(a), is_digits(b)) {
                (true, true) => numbers(a, b),
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (false, false) => a.cmp(b),
            },
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Compares numbers of any length, written without leading zeros.
fn numbers(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_padded(text: &str) -> bool {
    is_digits(text) && text.len() > 1 && text.starts_with('0')
}

/// Whether it is a number that JavaScript represents exactly.
fn is_number(text: &str) -> bool {
    const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;
    let is_small = || {
        text.parse::<u64>()
            .is_ok_and(|number| number <= MAX_SAFE_INTEGER)
    };
    is_digits(text) && !is_padded(text) && is_small()
}

fn is_word(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !text.is_empty() && text.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_specified() {
        let ordered = [
            "0.9.0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "v1",
            "1.0.1",
            "1.2",
            "1.10.0",
            "2.0.0+build",
            "9007199254740991.0.0",
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                let a = Version::parse(a).expect(a);
                let b = Version::parse(b).expect(b);
                assert_eq!(a.compare(&b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn white_space_around_a_version_is_that_of_javascript() {
        assert!(Version::parse("\u{feff} 1.2.3\u{2029}").is_some());
        assert_eq!(Version::parse("\u{85}1.2.3"), None);
    }

    #[test]
    fn an_invalid_version_is_rejected() {
        for bad in [
            "",
            "a",
            "1.",
            "1.2.3.4",
            "01.0.0",
            "1.0.0-",
            "1.0.0-01",
            "1.0.0+",
            "1-a",
            "vv1",
            " 1",
            "9007199254740992.0.0",
        ] {
            assert_eq!(Version::parse(bad), None, "{bad:?}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{for_all, text};

    use super::*;

    #[test]
    fn the_order_is_antisymmetric_and_equals_that_of_the_crate_semver() {
        let examples = [
            "1.2.3 1.2.3-alpha.1+build.7",
            "v1 1.0.0",
            "0.0.1-rc.1 0.0.1-rc.10",
            "9007199254740991.0.0 1.10",
            "1.0.0-alpha.beta 1.0.0-1",
        ];
        let words = &[
            ".",
            "-",
            "+",
            "v",
            "V",
            "=",
            "0",
            "00",
            "1",
            "10",
            " ",
            "alpha",
            "rc",
            "9007199254740992",
            "ä",
            "\t",
        ];
        for_all(&text(examples, words), |pair| {
            let (a, b) = pair.split_once(' ').unwrap_or((&pair, "1.0.0"));
            let (Some(one), Some(other)) = (Version::parse(a), Version::parse(b)) else {
                return;
            };
            let order = one.compare(&other);
            assert_eq!(other.compare(&one), order.reverse());
            assert!(one.compare(&one).is_eq());
            for (relation, holds) in [
                (Relation::Equal, order.is_eq()),
                (Relation::NotEqual, order.is_ne()),
                (Relation::Below, order.is_lt()),
                (Relation::AtMost, order.is_le()),
                (Relation::Above, order.is_gt()),
                (Relation::AtLeast, order.is_ge()),
            ] {
                assert_eq!(relation.holds(&one, &other), holds, "{relation:?}");
            }
            if let (Ok(a), Ok(b)) = (semver::Version::parse(a), semver::Version::parse(b)) {
                assert_eq!(a.cmp_precedence(&b), order, "{a} {b}");
            }
        });
    }

    #[test]
    fn versions_of_the_crate_semver_are_accepted_within_the_limits_of_javascript() {
        let examples = ["1.2.3-alpha.1+build.7", "0.0.0", "10.20.30-x.7.z.92"];
        let words = &[".", "-", "+", "0", "1", "a", "-a", "+b", "9007199254740992"];
        for_all(&text(examples, words), |text| {
            if let Ok(version) = semver::Version::parse(&text) {
                let numbers = [version.major, version.minor, version.patch];
                let small = numbers.iter().all(|number| *number < 1 << 53);
                let taken = Version::parse(&text).is_some();
                assert_eq!(taken, small && text.len() <= MAX_LENGTH, "{text}");
            }
        });
    }
}
