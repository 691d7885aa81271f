//! From JSON to expressions.

use serde_json::{Map, Value};

use super::Rule;
use super::bounds::{RULE_DEPTH, RULE_NODES};
use super::expression::{Each, Expression, Order, Texts};
use super::fractional::Fractional;
use super::path::{Asked, Path, Scope};
use super::run::Run;
use crate::{Context, Settings, pointer_step};

/// Why a rule does not compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where: a JSON pointer into the rule. Inside of an evaluator it ends at the reference.
    pub(crate) at: String,
    pub(crate) why: String,
}

/// Compiles a rule with the environment's evaluators in place of references to them.
pub(crate) fn compile(rule: &Value, settings: &Settings) -> Result<Rule, Fault> {
    let mut compiler = Compiler {
        settings,
        place: Vec::new(),
        hidden: 0,
        depth: 0,
        nodes: 0,
    };
    compiler.expression(rule).map(Rule)
}

struct Compiler<'s> {
    settings: &'s Settings,
    /// The way from the rule to the value at hand.
    place: Vec<String>,
    /// Above 0 inside of an evaluator, which is no part of the rule's text.
    hidden: usize,
    depth: usize,
    nodes: usize,
}

impl Compiler<'_> {
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
        if self.hidden == 0 {
            self.place.push(step());
        }
        let result = work(self);
        // The place of a fault is written down where it is found.
        if self.hidden == 0 {
            self.place.pop();
        }
        result
    }

    fn enter(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        self.nodes += 1;
        if self.depth > RULE_DEPTH {
            return Err(self.fault(format!("nested deeper than {RULE_DEPTH} levels")));
        }
        if self.nodes > RULE_NODES {
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
                fold(Expression::List(items))
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
        let settings = self.settings;
        let Some(evaluator) = settings.evaluators.get(name) else {
            return Err(self.fault(format!("there is no evaluator '{name}'")));
        };
        self.hidden += 1;
        // An evaluator that refers to itself ends at the bound on depth.
        let compiled = self.expression(evaluator);
        self.hidden -= 1;
        compiled
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
            "fractional" => Fractional::compile(arguments.collect(), self.settings.fractional),
            _ => return Err(self.fault(format!("there is no operator '{operator}'"))),
        };
        Ok(fold(expression))
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
        Some(Value::String(path)) => Some(Path::new(path)),
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

fn missing(arguments: Vec<Expression>) -> Expression {
    let names = match arguments.first().map(Expression::constant) {
        Some(Some(Value::Array(names))) => texts(names.iter().map(Some)),
        Some(_) | None => texts(arguments.iter().map(Expression::constant)),
    };
    match names {
        Some(names) => {
            let paths = names.into_iter().map(|name| {
                let path = Path::new(&name);
                (String::from(name), path)
            });
            Expression::Missing(paths.collect())
        }
        None => Expression::MissingOf(arguments),
    }
}

/// The texts, if all of them are.
fn texts<'a>(values: impl Iterator<Item = Option<&'a Value>>) -> Option<Vec<Box<str>>> {
    let texts = values.map(|value| value.and_then(Value::as_str).map(Box::from));
    texts.collect()
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
    if let Some(Value::Array(items)) = hay.constant()
        && let Some(texts) = texts(items.iter().map(Some))
    {
        return Expression::InTexts(needle, Texts::new(texts));
    }
    Expression::In(needle, hay)
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

/// Evaluates what does not depend on the caller, unless that fails: then it shall fail when it is
/// asked for.
fn fold(expression: Expression) -> Expression {
    if !is_fixed(&expression) {
        return expression;
    }
    let context = Context::default();
    let scope = Scope::Context(Asked {
        context: &context,
        flag: "",
        now: 0,
    });
    let folded = Run::new().evaluate(&expression, &scope);
    match folded.ok().and_then(|value| value.json()) {
        Some(value) => Expression::Constant(value),
        None => expression,
    }
}

/// Whether an operation has constant arguments only, and looks at nothing else.
fn is_fixed(expression: &Expression) -> bool {
    let all = |expressions: &[Expression]| expressions.iter().all(|one| one.constant().is_some());
    let both = |a: &Expression, b: &Expression| a.constant().is_some() && b.constant().is_some();
    let maybe =
        |one: &Option<Box<Expression>>| one.as_ref().is_none_or(|one| one.constant().is_some());
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
            one.constant().is_some()
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
