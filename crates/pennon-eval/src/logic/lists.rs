//! Operators over lists.

use super::coerce;
use super::expression::{Each, Expression};
use super::path::{self, Path, Scope};
use super::run::{Result, Run};
use super::value::{List, Val};

fn is_missing(value: &Val<'_>) -> bool {
    value.is_null() || matches!(value, Val::Text(text) if text.is_empty())
}

impl Run<'_> {
    /// The fixed names that are missing.
    pub(super) fn missing<'a>(&mut self, names: &'a [Path], scope: &Scope<'a>) -> Result<Val<'a>> {
        self.fuel.charge_request_limit(names.len() as u64)?;
        let mut missing = Vec::new();
        for path in names {
            if is_missing(&path.find(scope, &mut self.fuel)?) {
                missing.push(Val::text(path.text()));
            }
        }
        Val::list(missing)
    }

    /// `missing` with computed names: one list, or one argument per name.
    pub(super) fn missing_of<'a>(
        &mut self,
        names: &'a [Expression],
        scope: &Scope<'a>,
    ) -> Result<Val<'a>> {
        let names = self.all(names, scope)?;
        let missing = match names.first() {
            Some(Val::List(list)) => self.missing_among(list.iter(), scope)?,
            Some(_) | None => self.missing_among(names.into_iter(), scope)?,
        };
        Val::list(missing)
    }

    fn missing_among<'a>(
        &mut self,
        names: impl Iterator<Item = Val<'a>>,
        scope: &Scope<'a>,
    ) -> Result<Vec<Val<'a>>> {
        let mut missing = Vec::new();
        for name in names {
            self.fuel.charge_step()?;
            let path = self.text(&name)?;
            if is_missing(&path::find(scope, &path, &mut self.fuel)?) {
                missing.push(name);
            }
        }
        Ok(missing)
    }

    pub(super) fn missing_some<'a>(
        &mut self,
        need: &'a Expression,
        names: &'a Expression,
        scope: &Scope<'a>,
    ) -> Result<Val<'a>> {
        let need = self.evaluate(need, scope)?;
        let need = coerce::number(&need, &mut self.fuel)?.float();
        let Val::List(names) = self.evaluate(names, scope)? else {
            return Val::list(Vec::new());
        };
        let missing = self.missing_among(names.iter(), scope)?;
        let present = names.len() - missing.len();
        let is_enough = u32::try_from(present).is_ok_and(|present| f64::from(present) >= need);
        Val::list(if is_enough { Vec::new() } else { missing })
    }

    pub(super) fn each<'a>(
        &mut self,
        list: &'a Expression,
        body: &'a Expression,
        each: Each,
        scope: &Scope<'a>,
    ) -> Result<Val<'a>> {
        let list = self.evaluate(list, scope)?;
        let Val::List(list) = list else {
            return match each {
                Each::Map | Each::Filter => Val::list(Vec::new()),
                Each::All | Each::Some => Ok(Val::Bool(false)),
                Each::None => Ok(Val::Bool(true)),
            };
        };
        let mut kept = Vec::new();
        for item in list.iter() {
            self.fuel.charge_step()?;
            let result = self.evaluate(body, &Scope::Item(item.clone()))?;
            match each {
                Each::Map => kept.push(result),
                Each::Filter if result.is_truthy() => kept.push(item),
                Each::All if !result.is_truthy() => return Ok(Val::Bool(false)),
                Each::Some if result.is_truthy() => return Ok(Val::Bool(true)),
                Each::None if result.is_truthy() => return Ok(Val::Bool(false)),
                Each::Filter | Each::All | Each::Some | Each::None => {}
            }
        }
        match each {
            Each::Map | Each::Filter => Val::list(kept),
            // JsonLogic: `all` is false for an empty list.
            Each::All => Ok(Val::Bool(list.len() > 0)),
            Each::Some => Ok(Val::Bool(false)),
            Each::None => Ok(Val::Bool(true)),
        }
    }

    pub(super) fn reduce<'a>(
        &mut self,
        list: &'a Expression,
        body: &'a Expression,
        initial: &'a Expression,
        scope: &Scope<'a>,
    ) -> Result<Val<'a>> {
        let list = self.evaluate(list, scope)?;
        let mut accumulator = self.evaluate(initial, scope)?;
        if let Val::List(list) = list {
            for item in list.iter() {
                self.fuel.charge_step()?;
                let scope = Scope::Item(Val::reduce_scope(accumulator, item)?);
                accumulator = self.evaluate(body, &scope)?;
            }
        }
        Ok(accumulator)
    }

    pub(super) fn merge<'a>(
        &mut self,
        parts: &'a [Expression],
        scope: &Scope<'a>,
    ) -> Result<Val<'a>> {
        let mut merged = Vec::new();
        for part in parts {
            let part = self.evaluate(part, scope)?;
            if let Val::List(list) = &part {
                self.fuel.charge(list.len())?;
                merged.extend(list.iter());
            } else {
                merged.push(part);
            }
        }
        Val::list(merged)
    }

    pub(super) fn within<'a>(
        &mut self,
        needle: &'a Expression,
        hay: &'a Expression,
        scope: &Scope<'a>,
    ) -> Result<bool> {
        let needle = self.evaluate(needle, scope)?;
        match self.evaluate(hay, scope)? {
            Val::List(list) => self.is_among(&needle, &list),
            // An empty text contains nothing, not even an empty text.
            Val::Text(text) if text.is_empty() => Ok(false),
            Val::Text(text) => {
                self.fuel.charge_text(&text)?;
                let needle = self.text(&needle)?;
                self.fuel.charge_request_limit_for_bytes(needle.len())?;
                Ok(text.contains(&*needle))
            }
            Val::Null | Val::Bool(_) | Val::Number(_) | Val::Object(_) | Val::ReduceScope(_) => {
                Ok(false)
            }
        }
    }

    fn is_among(&mut self, needle: &Val<'_>, list: &List<'_>) -> Result<bool> {
        for item in list.iter() {
            self.fuel.charge_step()?;
            if coerce::same(needle, &item, &mut self.fuel)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
