//! From JSON to expressions.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::cost::Cost;
use super::evaluators::{Evaluators, Shared, too_deep};
use super::expression::{Each, Expression, Order, Texts};
use super::fractional::Fractional;
use super::path::{Asked, Path, Scope};
use super::rule::Rule;
use super::run::Run;
use crate::limits::{Fuel, RULE_DEPTH, RULE_NODES};
use crate::{Context, pointer_step};

/// Up to so many bytes a text of an evaluator is copied, which takes no more room than a pointer to it.
const SHORT: usize = 32;

/// Why a rule does not compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where: a JSON pointer into the rule. Inside of an evaluator it ends at the reference.
    pub(crate) at: String,
    pub(crate) why: String,
}

/// Compiles a rule that may refer to the evaluators of its environment.
pub(crate) fn compile(rule: &Value, evaluators: &Evaluators<'_>) -> Result<Rule, Fault> {
    let mut compiler = Compiler::new(evaluators, false);
    let expression = compiler.expression(rule)?;
    Ok(Rule {
        cost: Cost::of(&expression).total(),
        expression,
    })
}

pub(super) struct Compiler<'e, 's> {
    evaluators: &'e Evaluators<'s>,
    /// The way from the rule to the value at hand.
    place: Vec<String>,
    /// Whether this is an evaluator, which is no part of the text of the rule that refers to it.
    is_evaluator: bool,
    depth: usize,
    deepest: usize,
    values: usize,
}

impl<'e, 's> Compiler<'e, 's> {
    fn new(evaluators: &'e Evaluators<'s>, is_evaluator: bool) -> Self {
        Self {
            evaluators,
            place: Vec::new(),
            is_evaluator,
            depth: 0,
            deepest: 0,
            values: 0,
        }
    }

    /// For an evaluator, which is no part of the text of the rules that refer to it.
    pub(super) fn within_evaluator(evaluators: &'e Evaluators<'s>) -> Self {
        Self::new(evaluators, true)
    }

    pub(super) fn shared(mut self, rule: &Value) -> Result<Shared, Fault> {
        let expression = self.expression(rule)?;
        Ok(Shared::new(expression, self.values, self.deepest))
    }

    fn fault(&self, why: impl Into<String>) -> Fault {
        let mut at = String::new();
        for step in &self.place {
            at.push('/');
            at.push_str(&pointer_step(step));
        }
        Fault {
            at,
            why: why.into(),
        }
    }

    /// Does something one step further in.
    fn inside<T>(
        &mut self,
        step: impl FnOnce() -> String,
        work: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if !self.is_evaluator {
            self.place.push(step());
        }
        let result = work(self);
        // The place of a fault is written down where it is found.
        if !self.is_evaluator {
            self.place.pop();
        }
        result
    }

    fn enter(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        self.count_in(1, 0)
    }

    /// Counts values that are nested so deep at this place.
    fn count_in(&mut self, values: usize, depth: usize) -> Result<(), Fault> {
        self.deepest = self.deepest.max(self.depth + depth);
        self.values = self.values.saturating_add(values);
        if self.deepest > RULE_DEPTH {
            return Err(self.fault(too_deep()));
        }
        if self.values > RULE_NODES {
            return Err(self.fault(format!(
                "the rule holds more than {RULE_NODES} values, with what it refers to"
            )));
        }
        Ok(())
    }

    fn expression(&mut self, rule: &Value) -> Result<Expression, Fault> {
        self.enter()?;
        let expression = match rule {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Expression::Constant(rule.clone())
            }
            Value::Array(items) => {
                let items = self.items(items)?;
                self.fold(Expression::List(items))
            }
            Value::Object(fields) => match (fields.len(), fields.iter().next()) {
                (1, Some((operator, arguments))) => {
                    let operator = operator.as_str();
                    self.inside(
                        || operator.to_owned(),
                        |compiler| compiler.operation(operator, arguments),
                    )?
                }
                // Data, not an operation.
                (_, Some(_) | None) => self.data(fields)?,
            },
        };
        self.depth -= 1;
        Ok(expression)
    }

    /// An object that stays as it is, but counts.
    fn data(&mut self, fields: &Map<String, Value>) -> Result<Expression, Fault> {
        for (name, value) in fields {
            self.inside(|| name.clone(), |compiler| compiler.count(value))?;
        }
        Ok(Expression::Constant(Value::Object(fields.clone())))
    }

    fn count(&mut self, value: &Value) -> Result<(), Fault> {
        self.enter()?;
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            Value::Array(items) => {
                for item in items {
                    self.count(item)?;
                }
            }
            Value::Object(fields) => {
                for value in fields.values() {
                    self.count(value)?;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn items(&mut self, items: &[Value]) -> Result<Vec<Expression>, Fault> {
        let compiled = items.iter().enumerate().map(|(index, item)| {
            self.inside(|| index.to_string(), |compiler| compiler.expression(item))
        });
        compiled.collect()
    }

    fn reference(&mut self, name: &Value) -> Result<Expression, Fault> {
        let Value::String(name) = name else {
            return Err(self.fault("a reference is the name of an evaluator"));
        };
        let shared = self.evaluators.get(name);
        // It has the place of the reference, wherever it is in the evaluator.
        let shared = shared.map_err(|fault| self.fault(fault.why))?;
        self.count_in(shared.values, shared.depth)?;
        Ok(match &shared.expression {
            Expression::Constant(value) if is_short(value) => Expression::Constant(value.clone()),
            _shared => Expression::Shared(shared),
        })
    }

    fn operation(&mut self, operator: &str, arguments: &Value) -> Result<Expression, Fault> {
        if operator == "$ref" {
            return self.reference(arguments);
        }
        let compiled = match arguments {
            Value::Array(arguments) => self.items(arguments)?,
            one => vec![self.expression(one)?],
        };
        let mut arguments = compiled.into_iter();
        let expression = match operator {
            "var" => var(arguments),
            "missing" => missing(arguments.collect()),
            "missing_some" => {
                let need = next(&mut arguments);
                Expression::MissingSome(need, next(&mut arguments))
            }
            "if" | "?:" => Expression::If(arguments.collect()),
            "and" => Expression::And(arguments.collect()),
            "or" => Expression::Or(arguments.collect()),
            "!" => Expression::Truth(next(&mut arguments), false),
            "!!" => Expression::Truth(next(&mut arguments), true),
            "==" => equal(arguments, false, true),
            "!=" => equal(arguments, false, false),
            "===" => equal(arguments, true, true),
            "!==" => equal(arguments, true, false),
            "<" => ordered(arguments, Order::Below),
            "<=" => ordered(arguments, Order::AtMost),
            ">" => ordered(arguments, Order::Above),
            ">=" => ordered(arguments, Order::AtLeast),
            "+" => Expression::Sum(arguments.collect()),
            "*" => Expression::Product(arguments.collect()),
            "-" => {
                let first = next(&mut arguments);
                match arguments.next() {
                    Some(second) => Expression::Difference(first, Box::new(second)),
                    None => Expression::Negative(first),
                }
            }
            "/" => {
                let first = next(&mut arguments);
                Expression::Quotient(first, next(&mut arguments))
            }
            "%" => {
                let first = next(&mut arguments);
                Expression::Remainder(first, next(&mut arguments))
            }
            "min" => Expression::Minimum(arguments.collect()),
            "max" => Expression::Maximum(arguments.collect()),
            "map" => each(arguments, Each::Map),
            "filter" => each(arguments, Each::Filter),
            "all" => each(arguments, Each::All),
            "some" => each(arguments, Each::Some),
            "none" => each(arguments, Each::None),
            "reduce" => {
                let list = next(&mut arguments);
                let body = next(&mut arguments);
                Expression::Reduce {
                    list,
                    body,
                    initial: next(&mut arguments),
                }
            }
            "merge" => Expression::Merge(arguments.collect()),
            "in" => within(arguments),
            "cat" => Expression::Cat(arguments.collect()),
            "substr" => {
                let text = next(&mut arguments);
                let from = next(&mut arguments);
                Expression::Substr {
                    text,
                    from,
                    length: arguments.next().map(Box::new),
                }
            }
            // Logging is for those who debug rules; here it is what it logs.
            "log" => *next(&mut arguments),
            "starts_with" => affix(arguments.collect(), false),
            "ends_with" => affix(arguments.collect(), true),
            "sem_ver" => {
                let arguments: Vec<Expression> = arguments.collect();
                match <[Expression; 3]>::try_from(arguments) {
                    Ok(arguments) => Expression::SemVer(Box::new(arguments)),
                    Err(_) => Expression::NULL,
                }
            }
            "fractional" => Fractional::compile(arguments.collect(), self.evaluators),
            _ => return Err(self.fault(format!("there is no operator '{operator}'"))),
        };
        Ok(self.fold(expression))
    }

    /// Evaluates what does not depend on the caller, unless that fails: then it shall fail when it is
    /// asked for.
    fn fold(&self, expression: Expression) -> Expression {
        if !all_operands(&expression, &|one| one.constant().is_some()) {
            return expression;
        }
        let context = Context::default();
        let scope = Scope::Context(Asked {
            context: &context,
            flag: "",
            now: 0,
        });
        let is_copied = all_operands(&expression, &|one| !matches!(one, Expression::Shared(_)));
        let folded = if is_copied {
            // It takes no more room than its operands, whose place it takes.
            let mut run = Run::with(Fuel::for_evaluation());
            let folded = run.evaluate(&expression, &scope);
            folded.ok().and_then(|value| value.json())
        } else {
            let evaluators = self.evaluators;
            let folded = evaluators.fold(|run| Ok(run.evaluate(&expression, &scope)?.json()));
            folded
                .flatten()
                .filter(|value| evaluators.has_room_for(value))
        };
        match folded {
            Some(value) => Expression::Constant(value),
            None => expression,
        }
    }
}

type Arguments = std::vec::IntoIter<Expression>;

/// The next argument; `null` where there is none.
#[expect(clippy::unnecessary_box_returns, reason = "every caller wants a box")]
fn next(arguments: &mut Arguments) -> Box<Expression> {
    Box::new(arguments.next().unwrap_or(Expression::NULL))
}

fn var(mut arguments: Arguments) -> Expression {
    let path = next(&mut arguments);
    let default = arguments.next();
    let fixed = match path.constant() {
        Some(Value::Null) => Some(Path::new("")),
        Some(Value::String(text)) => Some(path_of(&path, text)),
        Some(Value::Number(index)) => Some(Path::new(&index.to_string())),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => None,
    };
    match (fixed, default) {
        (Some(path), None) => Expression::Var(path),
        // What is all there is does not lack: an empty path takes no default.
        (Some(path), Some(_)) if path.is_empty() => Expression::Var(path),
        (Some(path), Some(default)) => Expression::VarOr(path, Box::new(default)),
        (None, default) => Expression::VarAt(path, default.map(Box::new)),
    }
}

/// The path that a constant text is.
fn path_of(expression: &Expression, text: &str) -> Path {
    let make = || Path::new(text);
    match expression {
        Expression::Shared(shared) => shared.path(make),
        _copied => make(),
    }
}

fn missing(arguments: Vec<Expression>) -> Expression {
    let names = match arguments.first() {
        Some(first) if first.constant().is_some_and(Value::is_array) => {
            let make = || {
                let names = first.constant()?.as_array()?.iter();
                let paths = names.map(|name| name.as_str().map(Path::new));
                paths.collect::<Option<Arc<[Path]>>>()
            };
            match first {
                Expression::Shared(shared) => shared.names(make),
                _copied => make(),
            }
        }
        Some(_) | None => {
            let paths = arguments.iter().map(|name| {
                let text = name.constant()?.as_str()?;
                Some(path_of(name, text))
            });
            paths.collect()
        }
    };
    match names {
        Some(names) => Expression::Missing(names),
        None => Expression::MissingOf(arguments),
    }
}

/// Whether a constant is copied rather than shared.
fn is_short(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => text.len() <= SHORT,
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn equal(mut arguments: Arguments, is_strict: bool, when_equal: bool) -> Expression {
    let a = next(&mut arguments);
    Expression::Equal {
        a,
        b: next(&mut arguments),
        is_strict,
        when_equal,
    }
}

fn ordered(mut arguments: Arguments, order: Order) -> Expression {
    let a = next(&mut arguments);
    let b = next(&mut arguments);
    Expression::Order {
        a,
        b,
        c: arguments.next().map(Box::new),
        order,
    }
}

fn each(mut arguments: Arguments, each: Each) -> Expression {
    let list = next(&mut arguments);
    // Without a body nothing is mapped, and nothing holds.
    Expression::Each {
        list,
        body: next(&mut arguments),
        each,
    }
}

fn within(mut arguments: Arguments) -> Expression {
    let needle = next(&mut arguments);
    let hay = next(&mut arguments);
    let make = || {
        let texts = hay.constant()?.as_array()?.iter();
        let texts: Option<Vec<Box<str>>> = texts.map(|text| text.as_str().map(Box::from)).collect();
        Some(Arc::new(Texts::new(texts?)))
    };
    let texts = match &*hay {
        Expression::Shared(shared) => shared.texts(make),
        _copied => make(),
    };
    match texts {
        Some(texts) => Expression::InTexts(needle, texts),
        None => Expression::In(needle, hay),
    }
}

fn affix(arguments: Vec<Expression>, is_end: bool) -> Expression {
    match <[Expression; 2]>::try_from(arguments) {
        Ok([text, affix]) => Expression::Affix {
            text: Box::new(text),
            affix: Box::new(affix),
            is_end,
        },
        Err(_) => Expression::NULL,
    }
}

/// Whether an operation looks at nothing but its operands, and this holds for all of them.
fn all_operands(expression: &Expression, holds: &impl Fn(&Expression) -> bool) -> bool {
    let all = |expressions: &[Expression]| expressions.iter().all(holds);
    let both = |a: &Expression, b: &Expression| holds(a) && holds(b);
    let maybe = |one: &Option<Box<Expression>>| one.as_ref().is_none_or(|one| holds(one));
    match expression {
        Expression::List(items)
        | Expression::If(items)
        | Expression::And(items)
        | Expression::Or(items)
        | Expression::Sum(items)
        | Expression::Product(items)
        | Expression::Minimum(items)
        | Expression::Maximum(items)
        | Expression::Merge(items)
        | Expression::Cat(items) => all(items),
        Expression::Truth(one, _) | Expression::Negative(one) | Expression::InTexts(one, _) => {
            holds(one)
        }
        Expression::Equal { a, b, .. }
        | Expression::Difference(a, b)
        | Expression::Quotient(a, b)
        | Expression::Remainder(a, b)
        | Expression::In(a, b)
        | Expression::Affix {
            text: a, affix: b, ..
        } => both(a, b),
        Expression::Order { a, b, c, .. } => both(a, b) && maybe(c),
        Expression::Substr { text, from, length } => both(text, from) && maybe(length),
        Expression::SemVer(arguments) => all(arguments.as_slice()),
        Expression::Constant(_)
        | Expression::Shared(_)
        | Expression::Var(_)
        | Expression::VarOr(..)
        | Expression::VarAt(..)
        | Expression::Missing(_)
        | Expression::MissingOf(_)
        | Expression::MissingSome(..)
        | Expression::Each { .. }
        | Expression::Reduce { .. }
        | Expression::Fractional(_) => false,
    }
}
