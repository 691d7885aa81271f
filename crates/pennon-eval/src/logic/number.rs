//! Numbers. Integers of JSON are exact within 64 bits; their sums, differences, products and remainders, within `i64`.

use std::cmp::Ordering;

use serde_json::Number;

/// A number of a rule.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Num {
    /// An integer.
    Int(i64),
    /// An integer above `i64::MAX`.
    Big(u64),
    /// Any other number, or not-a-number.
    Float(f64),
}

impl Num {
    pub(super) const NAN: Self = Self::Float(f64::NAN);

    pub(super) fn of(number: &Number) -> Self {
        if let Some(int) = number.as_i64() {
            Self::Int(int)
        } else if let Some(big) = number.as_u64() {
            Self::Big(big)
        } else {
            Self::Float(number.as_f64().unwrap_or(f64::NAN))
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "other JSON parsers round large integers too"
    )]
    pub(super) fn float(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Big(big) => big as f64,
            Self::Float(float) => float,
        }
    }

    /// As JSON; `None` for infinity and not-a-number.
    pub(super) fn json(self) -> Option<Number> {
        match self {
            Self::Int(int) => Some(int.into()),
            Self::Big(big) => Some(big.into()),
            Self::Float(float) => Number::from_f64(float),
        }
    }

    pub(super) fn is_truthy(self) -> bool {
        match self {
            Self::Int(int) => int != 0,
            Self::Big(_) => true,
            Self::Float(float) => float != 0.0 && !float.is_nan(),
        }
    }

    fn whole(self) -> Option<i128> {
        match self {
            Self::Int(int) => Some(int.into()),
            Self::Big(big) => Some(big.into()),
            Self::Float(_) => None,
        }
    }

    pub(super) fn compare(self, other: Self) -> Option<Ordering> {
        if let (Self::Int(a), Self::Int(b)) = (self, other) {
            return Some(a.cmp(&b));
        }
        match (self.whole(), other.whole()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            (Some(_) | None, None) | (None, Some(_)) => self.float().partial_cmp(&other.float()),
        }
    }

    pub(super) fn equals(self, other: Self) -> bool {
        self.compare(other) == Some(Ordering::Equal)
    }

    /// An integer if both operands and the result fit into `i64`, else a float.
    fn combine(
        self,
        other: Self,
        whole: impl FnOnce(i64, i64) -> Option<i64>,
        float: impl FnOnce(f64, f64) -> f64,
    ) -> Self {
        if let (Self::Int(a), Self::Int(b)) = (self, other)
            && let Some(result) = whole(a, b)
        {
            return Self::Int(result);
        }
        Self::Float(float(self.float(), other.float()))
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.combine(other, i64::checked_add, |a, b| a + b)
    }

    pub(super) fn minus(self, other: Self) -> Self {
        self.combine(other, i64::checked_sub, |a, b| a - b)
    }

    pub(super) fn times(self, other: Self) -> Self {
        self.combine(other, i64::checked_mul, |a, b| a * b)
    }

    /// `None` for a division by zero.
    pub(super) fn over(self, other: Self) -> Option<Self> {
        (other.float() != 0.0).then(|| Self::Float(self.float() / other.float()))
    }

    /// The remainder, with the sign of the dividend; `None` for a division by zero.
    pub(super) fn modulo(self, other: Self) -> Option<Self> {
        (other.float() != 0.0).then(|| self.combine(other, i64::checked_rem, |a, b| a % b))
    }

    /// The text that JavaScript writes, but integers are not rounded.
    pub(super) fn text(self) -> String {
        match self {
            Self::Int(int) => int.to_string(),
            Self::Big(big) => big.to_string(),
            Self::Float(float) if float.is_nan() => "NaN".to_owned(),
            Self::Float(float) if float.is_infinite() => {
                if float > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
            }
            Self::Float(0.0) => "0".to_owned(),
            Self::Float(float) if (1e-6..1e21).contains(&float.abs()) => float.to_string(),
            Self::Float(float) => {
                let text = format!("{float:e}");
                match text.split_once('e') {
                    Some((digits, power)) if !power.starts_with('-') => {
                        format!("{digits}e+{power}")
                    }
                    Some(_) | None => text,
                }
            }
        }
    }

    /// Parses a whole text. White space alone is 0, and a text that is not entirely a number is not-a-number.
    pub(super) fn parse(text: &str) -> Self {
        let text = trim(text);
        if text.is_empty() {
            return Self::Int(0);
        }
        if let Some((radix, digits)) = radix(text) {
            return Self::whole_of(digits, radix);
        }
        match prefix(text) {
            number if number.len() == text.len() => Self::decimal(number),
            _ => Self::NAN,
        }
    }

    /// Parses the number at the beginning of a text; not-a-number if there is none.
    pub(super) fn parse_prefix(text: &str) -> Self {
        Self::decimal(prefix(trim(text)))
    }

    fn decimal(text: &str) -> Self {
        // `prefix` returns digits or `Infinity`, and no other word that Rust parses as a number.
        Self::Float(text.parse().unwrap_or(f64::NAN))
    }

    fn whole_of(digits: &str, radix: u32) -> Self {
        if digits.is_empty() {
            return Self::NAN;
        }
        let mut result = 0.0;
        for digit in digits.chars() {
            let Some(digit) = digit.to_digit(radix) else {
                return Self::NAN;
            };
            result = result * f64::from(radix) + f64::from(digit);
        }
        Self::Float(result)
    }
}

/// Trims as JavaScript does: U+0085 is white space in Unicode but not there, and U+FEFF the reverse.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|char| match char {
        '\u{85}' => false,
        '\u{feff}' => true,
        other => other.is_whitespace(),
    })
}

/// Notations other than decimal: `0x1F`, `0b1`, `0o7`.
fn radix(text: &str) -> Option<(u32, &str)> {
    let (zero, digits) = text.split_at_checked(2)?;
    let radix = match zero {
        "0x" | "0X" => 16,
        "0o" | "0O" => 8,
        "0b" | "0B" => 2,
        _ => return None,
    };
    Some((radix, digits))
}

/// The longest decimal number at the beginning of a text.
fn prefix(text: &str) -> &str {
    let bytes = text.as_bytes();
    let digits = |from: usize| {
        let rest = bytes.get(from..).unwrap_or_default();
        rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let sign = usize::from(text.starts_with(['+', '-']));
    if text
        .get(sign..)
        .is_some_and(|rest| rest.starts_with("Infinity"))
    {
        return text.get(..sign + "Infinity".len()).unwrap_or_default();
    }
    let whole = digits(sign);
    let mut end = sign + whole;
    let mut fraction = 0;
    if bytes.get(end) == Some(&b'.') {
        fraction = digits(end + 1);
        if whole + fraction > 0 {
            end += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        return "";
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let power = digits(end + 1 + sign);
        if power > 0 {
            end += 1 + sign + power;
        }
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_parsed_and_formatted_as_in_javascript() {
        let table = [
            ("", "0", "NaN"),
            (" 5 ", "5", "5"),
            ("\u{feff}\u{2028}\u{3000}5\u{a0}\u{b}", "5", "5"),
            ("\u{85}5", "NaN", "NaN"),
            ("5\u{85}", "NaN", "5"),
            ("1e3", "1000", "1000"),
            ("1e", "NaN", "1"),
            ("0x1F", "31", "0"),
            ("12abc", "NaN", "12"),
            ("-3.50", "-3.5", "-3.5"),
            (".5", "0.5", "0.5"),
            ("5.", "5", "5"),
            (".", "NaN", "NaN"),
            ("-", "NaN", "NaN"),
            ("NaN", "NaN", "NaN"),
            ("inf", "NaN", "NaN"),
            ("-Infinityx", "NaN", "-Infinity"),
            ("1_000", "NaN", "1"),
            ("0.1e-6", "1e-7", "1e-7"),
            ("1e21", "1e+21", "1e+21"),
            (
                "123456789012345680000",
                "123456789012345680000",
                "123456789012345680000",
            ),
        ];
        for (text, whole, begins) in table {
            assert_eq!(Num::parse(text).text(), whole, "{text:?}");
            assert_eq!(Num::parse_prefix(text).text(), begins, "{text:?}");
        }
    }
}
