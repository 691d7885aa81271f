//! Operators over texts.

use super::coerce;
use super::expression::Expression;
use super::path::Scope;
use super::run::{Result, Run};
use super::semver::{Relation, Version};
use super::value::{Text, Val};

impl Run<'_> {
    pub(super) fn cat<'a>(
        &mut self,
        parts: &'a [Expression],
        scope: &Scope<'a>,
    ) -> Result<Val<'a>> {
        let mut written = String::new();
        for part in parts {
            let part = self.evaluate(part, scope)?;
            coerce::write(&part, &mut written, &mut self.fuel)?;
        }
        Ok(Val::owned_text(written))
    }

    /// A part of a text. `from` and `length` count characters, not bytes. A negative `from` counts from the end; a
    /// negative `length` omits that many characters at the end.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a cast from a float saturates at the limits of `i64`, and no text is that long"
    )]
    pub(super) fn substr<'a>(
        &mut self,
        text: &'a Expression,
        from: &'a Expression,
        length: Option<&'a Expression>,
        scope: &Scope<'a>,
    ) -> Result<Val<'a>> {
        let text = self.evaluate(text, scope)?;
        let text = self.text(&text)?;
        self.fuel.charge_text(&text)?;
        let count = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        let from = self.evaluate(from, scope)?;
        let from = coerce::number(&from, &mut self.fuel)?.float() as i64;
        let start = if from < 0 {
            from.saturating_add(count).max(0)
        } else {
            from.min(count)
        };
        let end = match length {
            None => count,
            Some(length) => {
                let length = self.evaluate(length, scope)?;
                let length = coerce::number(&length, &mut self.fuel)?.float() as i64;
                let base = if length < 0 { count } else { start };
                base.saturating_add(length)
            }
        };
        let skipped = usize::try_from(start).unwrap_or(0);
        let taken = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
        let part: String = text.chars().skip(skipped).take(taken).collect();
        Ok(Val::owned_text(part))
    }

    pub(super) fn sem_ver<'a>(
        &mut self,
        arguments: &'a [Expression; 3],
        scope: &Scope<'a>,
    ) -> Result<Val<'a>> {
        let [a, relation, b] = arguments;
        let a = self.evaluate(a, scope)?;
        let a = self.text(&a)?;
        let relation = self.evaluate(relation, scope)?;
        let relation: Text<'_> = self.text(&relation)?;
        let b = self.evaluate(b, scope)?;
        let b = self.text(&b)?;
        self.fuel.charge_text(&a)?;
        self.fuel.charge_text(&b)?;
        let parsed = (
            Version::parse(&a),
            Relation::parse(&relation),
            Version::parse(&b),
        );
        Ok(match parsed {
            (Some(a), Some(relation), Some(b)) => Val::Bool(relation.holds(&a, &b)),
            (_, _, _) => Val::Null,
        })
    }
}
