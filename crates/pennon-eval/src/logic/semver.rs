//! `sem_ver`: versions (semver.org) and how they compare. A leading `v` and missing parts are
//! forgiven: `v1` is `1.0.0`.

use std::cmp::Ordering;

/// A version, as far as comparing needs it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Version<'a> {
    major: &'a str,
    minor: &'a str,
    patch: &'a str,
    /// Empty when the version is a release.
    pre: &'a str,
}

/// How two versions are to stand.
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
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let (text, build) = match text.split_once('+') {
            Some((text, build)) => (text, Some(build)),
            None => (text, None),
        };
        let (core, pre) = match text.split_once('-') {
            Some((core, pre)) => (core, Some(pre)),
            None => (text, None),
        };
        let mut parts = core.split('.');
        let version = Self {
            major: parts.next()?,
            minor: parts.next().unwrap_or("0"),
            patch: parts.next().unwrap_or("0"),
            pre: pre.unwrap_or(""),
        };
        let is_complete = parts.next().is_none();
        let numbers = [version.major, version.minor, version.patch];
        let good = is_complete
            && numbers.into_iter().all(is_number)
            && pre.is_none_or(|pre| pre.split('.').all(|part| is_word(part) && !is_padded(part)))
            && build.is_none_or(|build| build.split('.').all(is_word));
        good.then_some(version)
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

fn is_number(text: &str) -> bool {
    is_digits(text) && !is_padded(text)
}

fn is_word(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !text.is_empty() && text.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_in_the_order_of_the_specification() {
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
            "99999999999999999999.0.0",
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
    fn what_is_no_version_is_none() {
        for bad in [
            "", "a", "1.", "1.2.3.4", "01.0.0", "1.0.0-", "1.0.0-01", "1.0.0+", "vv1", " 1",
        ] {
            assert_eq!(Version::parse(bad), None, "{bad:?}");
        }
    }
}
