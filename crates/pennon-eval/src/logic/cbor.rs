//! Hashes the deterministic CBOR encoding of a value (RFC 8949, 4.2), which version 3 of `fractional` uses. A whole
//! float from -2^63 to below 2^64 is encoded as an integer.

use serde_json::{Map, Value};

use super::murmur::Murmur;
use super::number::Num;
use super::value::{ReduceScope, Val};
use crate::limits::{EvalError, Fuel};

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

// A length or value that does not fit into the first byte follows in this many bytes.
const ONE_BYTE: u8 = 0x18;
const TWO_BYTES: u8 = 0x19;
const FOUR_BYTES: u8 = 0x1a;
const EIGHT_BYTES: u8 = 0x1b;

/// Hashes the head of a list with this many items.
pub(super) fn list(items: usize, hash: &mut Murmur) {
    head(ARRAY, items as u64, hash);
}

#[inline]
pub(super) fn text(text: &str, hash: &mut Murmur) {
    head(TEXT, text.len() as u64, hash);
    hash.write(text.as_bytes());
}

/// Hashes these parts as one text.
pub(super) fn text_in_parts(parts: &[&str], hash: &mut Murmur) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    head(TEXT, length as u64, hash);
    for part in parts {
        hash.write(part.as_bytes());
    }
}

pub(super) fn value(value: &Val<'_>, hash: &mut Murmur, fuel: &mut Fuel) -> Result<(), EvalError> {
    fuel.charge_step()?;
    match value {
        Val::Null => hash.write(&[0xf6]),
        Val::Bool(false) => hash.write(&[0xf4]),
        Val::Bool(true) => hash.write(&[0xf5]),
        Val::Number(number) => self::number(*number, hash),
        Val::Text(content) => {
            fuel.charge_text(content)?;
            text(content, hash);
        }
        Val::List(content) => {
            list(content.len(), hash);
            for item in content.iter() {
                self::value(&item, hash, fuel)?;
            }
        }
        Val::Object(content) => fields(content, hash, fuel)?,
        Val::ReduceScope(content) => reduce_scope(content, hash, fuel)?,
    }
    Ok(())
}

fn fields(
    content: &Map<String, Value>,
    hash: &mut Murmur,
    fuel: &mut Fuel,
) -> Result<(), EvalError> {
    head(MAP, content.len() as u64, hash);
    fuel.charge_request_limit(content.len() as u64)?;
    let mut sorted: Vec<(&String, &Value)> = content.iter().collect();
    // Encodings begin with the length, so shorter names sort first.
    sorted.sort_unstable_by_key(|(name, _)| (name.len(), *name));
    for (name, content) in sorted {
        fuel.charge_text(name)?;
        text(name, hash);
        value(&Val::of(content), hash, fuel)?;
    }
    Ok(())
}

fn reduce_scope(
    content: &ReduceScope<'_>,
    hash: &mut Murmur,
    fuel: &mut Fuel,
) -> Result<(), EvalError> {
    head(MAP, 2, hash);
    text("current", hash);
    value(&content.current, hash, fuel)?;
    text("accumulator", hash);
    value(&content.accumulator, hash, fuel)
}

fn number(number: Num, hash: &mut Murmur) {
    match number {
        Num::Int(int) => match u64::try_from(int) {
            Ok(int) => head(UNSIGNED, int, hash),
            Err(_) => head(NEGATIVE, int.unsigned_abs() - 1, hash),
        },
        Num::Big(big) => head(UNSIGNED, big, hash),
        Num::Float(float) => self::float(float, hash),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "only whole numbers in the range of the type are cast"
)]
fn float(float: f64, hash: &mut Murmur) {
    // 2^63 and 2^64, exactly.
    const SIGNED: f64 = 9_223_372_036_854_775_808.0;
    const UNSIGNED_END: f64 = 18_446_744_073_709_551_616.0;
    let is_whole = float.trunc().to_bits() == float.to_bits();
    if is_whole && (0.0..UNSIGNED_END).contains(&float) {
        number(Num::Big(float as u64), hash);
    } else if is_whole && (-SIGNED..=0.0).contains(&float) {
        number(Num::Int(float as i64), hash);
    } else if let Some(half) = half(float) {
        hash.write(&[0xf9]);
        hash.write(&half.to_be_bytes());
    } else if f64::from(float as f32).to_bits() == float.to_bits() {
        hash.write(&[0xfa]);
        hash.write(&(float as f32).to_be_bytes());
    } else {
        hash.write(&[0xfb]);
        hash.write(&float.to_be_bytes());
    }
}

/// The half-precision float that equals this number, if there is one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the exponent has 11 bits, and the mantissa is shifted down to 10"
)]
fn half(float: f64) -> Option<u16> {
    if float.is_nan() {
        return Some(0x7e00);
    }
    let bits = float.to_bits();
    let sign = ((bits >> 48) & 0x8000) as u16;
    if float.is_infinite() {
        return Some(sign | 0x7c00);
    }
    let exponent = i64::from(((bits >> 52) & 0x7ff) as u16) - 1023;
    let mantissa = bits & ((1 << 52) - 1);
    if (-14..=15).contains(&exponent) && mantissa.trailing_zeros() >= 42 {
        return Some(sign | ((exponent + 15) as u16) << 10 | (mantissa >> 42) as u16);
    }
    // Subnormal: a multiple of 2^-24 below 2^-14.
    if (-24..-14).contains(&exponent) {
        let whole = mantissa | 1 << 52;
        let shift = u32::try_from(28 - exponent).ok()?;
        if whole.trailing_zeros() >= shift {
            return Some(sign | (whole >> shift) as u16);
        }
    }
    None
}

/// Hashes the type of an item, and its length or value in the shortest form.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the range of each arm fits into the type"
)]
fn head(kind: u8, argument: u64, hash: &mut Murmur) {
    let kind = kind << 5;
    match argument {
        0..=23 => hash.write(&[kind | argument as u8]),
        24..=0xff => hash.write(&[kind | ONE_BYTE, argument as u8]),
        0x100..=0xffff => {
            hash.write(&[kind | TWO_BYTES]);
            hash.write(&(argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            hash.write(&[kind | FOUR_BYTES]);
            hash.write(&(argument as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            hash.write(&[kind | EIGHT_BYTES]);
            hash.write(&argument.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{for_all, json};
    use serde_json::json;

    use super::*;

    /// Prepares a value for another encoder: whole floats in the range of integers become integers, and fields are
    /// sorted by their encodings.
    fn canonical(value: &Value) -> ciborium::Value {
        match value {
            Value::Null => ciborium::Value::Null,
            Value::Bool(bool) => ciborium::Value::Bool(*bool),
            Value::String(text) => ciborium::Value::Text(text.clone()),
            Value::Array(items) => ciborium::Value::Array(items.iter().map(canonical).collect()),
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_by_key(|(name, _)| (name.len(), name.as_bytes()));
                let fields = fields.into_iter();
                let pair = |(name, value): (&String, &Value)| {
                    (ciborium::Value::Text(name.clone()), canonical(value))
                };
                ciborium::Value::Map(fields.map(pair).collect())
            }
            Value::Number(number) => {
                if let Some(number) = number.as_i64() {
                    return ciborium::Value::Integer(number.into());
                }
                if let Some(number) = number.as_u64() {
                    return ciborium::Value::Integer(number.into());
                }
                let float = number.as_f64().expect("a number");
                // From -2^63 to 2^64, exactly.
                let range = -9_223_372_036_854_775_808.0..18_446_744_073_709_551_616.0;
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "whole and within the range"
                )]
                let whole =
                    (float.fract() == 0.0 && range.contains(&float)).then_some(float as i128);
                let whole = whole.and_then(|whole| ciborium::value::Integer::try_from(whole).ok());
                whole.map_or(ciborium::Value::Float(float), ciborium::Value::Integer)
            }
        }
    }

    #[test]
    fn the_encoding_equals_that_of_another_encoder() {
        let examples = [
            // The smallest and the largest subnormal number of half precision, their neighbours, and a number above
            // the largest one of half precision.
            json!([
                2f64.powi(-24),
                1023.0 * 2f64.powi(-24),
                2f64.powi(-14),
                2f64.powi(-25),
                65504.5
            ]),
            json!({"targetingKey": "alice", "age": 41, "ratio": 0.1, "big": 1e300, "half": 1.5}),
            json!([
                0,
                23,
                24,
                255,
                256,
                65_535,
                65_536,
                4_294_967_296_u64,
                -1,
                -24,
                -25,
                -257
            ]),
            json!({"bb": 1, "a": [true, false, null], "": {"ü": "ä😀"}, "aaa": -0.0, "f": 3.4e38}),
        ];
        for_all(&json(examples), |input| {
            let mut ours = Murmur::default();
            if value(&Val::of(&input), &mut ours, &mut Fuel::for_evaluation()).is_err() {
                return;
            }
            let mut bytes = Vec::new();
            ciborium::into_writer(&canonical(&input), &mut bytes).expect("encodes");
            let mut theirs = Murmur::default();
            theirs.write(&bytes);
            assert_eq!(ours.finish(), theirs.finish(), "{input}");
        });
    }
}
