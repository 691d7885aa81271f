//! Numbers: whole ones stay whole while they fit, as in the JSON they came from.

use std::cmp::Ordering;

use serde_json::Number;

/// A number of a rule.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Num {
    /// Whole.
    Int(i64),
    /// Whole, and too large for the other.
    Big(u64),
    /// Everything else, not-a-number too.
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
        reason = "what JSON's other readers do with large whole numbers"
    )]
    pub(super) fn float(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Big(big) => big as f64,
            Self::Float(float) => float,
        }
    }

    /// As JSON; nothing for what JSON cannot say.
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
        match (self.whole(), other.whole()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            (Some(_) | None, None) | (None, Some(_)) => self.float().partial_cmp(&other.float()),
        }
    }

    pub(super) fn equals(self, other: Self) -> bool {
        self.compare(other) == Some(Ordering::Equal)
    }

    /// The whole result while it fits, the other one when it does not.
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

    /// Nothing for a division by zero.
    pub(super) fn over(self, other: Self) -> Option<Self> {
        (other.float() != 0.0).then(|| Self::Float(self.float() / other.float()))
    }

    /// What is left, with the sign of the dividend; nothing for a division by zero.
    pub(super) fn modulo(self, other: Self) -> Option<Self> {
        (other.float() != 0.0).then(|| self.combine(other, i64::checked_rem, |a, b| a % b))
    }

    /// How JavaScript writes it.
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

    /// The number that a text says. Nothing but white space is 0, what is no number is
    /// not-a-number.
    pub(super) fn parse(text: &str) -> Self {
        let text = text.trim();
        if text.is_empty() {
            return Self::Float(0.0);
        }
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        // Rust would take "inf" and "nan" in every case.
        let is_number = digits == "Infinity"
            || digits.starts_with(|first: char| first.is_ascii_digit() || first == '.');
        match text.parse::<f64>() {
            Ok(float) if is_number => Self::Float(float),
            Ok(_) | Err(_) => Self::NAN,
        }
    }
}
