//! Compiles the JSON of a rule to an [`Expression`].

use std::sync::Arc;

use serde_json::{Map, Value};

use super::bucket::HashedKey;
use super::estimate;
use super::evaluators::{CompileError, Evaluators, State};
use super::expression::{CompiledEvaluator, Each, Expression, Fractional, Order, Texts};
use super::path::{Input, Path, Scope};
use super::rule::Rule;
use super::run::Run;
use super::traced::{self, Traced};
use crate::limits::{Fuel, RULE_DEPTH, RULE_NODES};
use crate::trace::{Argument, Operation};
use crate::{Context, pointer_step};

/// Rules copy a constant evaluator that is a text of at most this many bytes: sharing it would save no memory.
const SHORT: usize = 32;

/// Compiles a rule that may refer to the evaluators of its environment.
pub(crate) fn compile(rule: &Value, evaluators: &Evaluators<'_>) -> Result<Rule, CompileError> {
    let mut compiler = Compiler::new(evaluators, None);
    let expression = compiler.expression(rule)?;
    Ok(Rule {
        cost: estimate::cost(&expression).total(),
        expression,
    })
}

/// Compiles an evaluator when a rule first refers to it.
fn compile_evaluator(
    name: &str,
    evaluators: &Evaluators<'_>,
) -> Result<Arc<CompiledEvaluator>, CompileError> {
    let error = |message: String| CompileError {
        pointer: String::new(),
        message,
    };
    let Some((name, rule, state)) = evaluators.get(name) else {
        return Err(error(format!("there is no evaluator '{name}'")));
    };
    match state {
        Some(State::Done(result)) => return result,
        // The evaluator refers to itself.
        Some(State::Compiling) => return Err(error(too_deep())),
        None => {}
    }
    evaluators.set(name, State::Compiling);
    let result = Compiler::new(evaluators, Some(name))
        .evaluator(rule)
        .map(Arc::new);
    evaluators.set(name, State::Done(result.clone()));
    result
}

/// The JSON pointer with these steps.
fn pointer(path: &[String]) -> String {
    let steps = path.iter().map(|step| format!("/{}", pointer_step(step)));
    steps.collect()
}

fn too_deep() -> String {
    format!("nested deeper than {RULE_DEPTH} levels")
}

struct Compiler<'e, 's> {
    evaluators: &'e Evaluators<'s>,
    /// The steps of the JSON pointer from the rule to the current value.
    path: Vec<String>,
    /// The name of the evaluator that is compiled.
    evaluator: Option<Arc<str>>,
    depth: usize,
    deepest: usize,
    values: usize,
}

impl<'e, 's> Compiler<'e, 's> {
    fn new(evaluators: &'e Evaluators<'s>, evaluator: Option<&str>) -> Self {
        Self {
            evaluators,
            path: Vec::new(),
            evaluator: evaluator.map(Arc::from),
            depth: 0,
            deepest: 0,
            values: 0,
        }
    }

    fn evaluator(mut self, rule: &Value) -> Result<CompiledEvaluator, CompileError> {
        let expression = self.expression(rule)?;
        let costs = (estimate::cost(&expression), estimate::per_item(&expression));
        let size = (self.values, self.deepest);
        Ok(CompiledEvaluator::new(expression, size, costs))
    }

    fn error(&self, message: impl Into<String>) -> CompileError {
        CompileError {
            pointer: pointer(&self.path),
            message: message.into(),
        }
    }

    /// Whether pointers are needed: for errors of the rule, and for a trace. The text of an evaluator is not part of
    /// the rule, so it adds nothing to the pointers of errors.
    fn needs_path(&self) -> bool {
        self.evaluator.is_none() || self.evaluators.is_traced
    }

    /// Runs `work` for the value one step below the current one.
    fn inside<T>(
        &mut self,
        step: impl FnOnce() -> String,
        work: impl FnOnce(&mut Self) -> Result<T, CompileError>,
    ) -> Result<T, CompileError> {
        let needs_path = self.needs_path();
        if needs_path {
            self.path.push(step());
        }
        let result = work(self);
        // An error already holds its pointer.
        if needs_path {
            self.path.pop();
        }
        result
    }

    fn enter(&mut self) -> Result<(), CompileError> {
        self.depth += 1;
        self.count_in(1, 0)
    }

    /// Counts this many values, nested this deep below the current value.
    fn count_in(&mut self, values: usize, depth: usize) -> Result<(), CompileError> {
        self.deepest = self.deepest.max(self.depth + depth);
        self.values = self.values.saturating_add(values);
        if self.deepest > RULE_DEPTH {
            return Err(self.error(too_deep()));
        }
        if self.values > RULE_NODES {
            return Err(self.error(format!(
                "the rule has more than {RULE_NODES} values, with references replaced"
            )));
        }
        Ok(())
    }

    fn expression(&mut self, rule: &Value) -> Result<Expression, CompileError> {
        self.enter()?;
        let expression = match rule {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Expression::Constant(rule.clone())
            }
            Value::Array(items) => {
                let items = self.items(items)?;
                let list = self.fold(Expression::List(items));
                self.traced(list, &self.path, None)
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

    /// Marks an expression for a trace. An operation has an operator and operands; a `var`, a reference or a list has
    /// neither.
    fn traced(
        &self,
        expression: Expression,
        path: &[String],
        operation: Option<(&str, Arc<[Argument]>)>,
    ) -> Expression {
        if !self.evaluators.is_traced || expression.constant().is_some() {
            return expression;
        }
        let (operator, arguments) = operation.unzip();
        let operation = Operation {
            evaluator: self.evaluator.clone(),
            pointer: pointer(path),
            operator: operator.map(str::to_owned),
            arguments: arguments.unwrap_or_default(),
        };
        Expression::Traced(Box::new(Traced {
            expression,
            operation,
        }))
    }

    /// The steps to the current operation. The path ends with its operator.
    fn above(&self) -> &[String] {
        self.path.split_last().map_or(&[], |(_, above)| above)
    }

    /// An object that is data. Its values count against the limits.
    fn data(&mut self, fields: &Map<String, Value>) -> Result<Expression, CompileError> {
        for (name, value) in fields {
            self.inside(|| name.clone(), |compiler| compiler.count(value))?;
        }
        Ok(Expression::Constant(Value::Object(fields.clone())))
    }

    fn count(&mut self, value: &Value) -> Result<(), CompileError> {
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

    fn items(&mut self, items: &[Value]) -> Result<Vec<Expression>, CompileError> {
        let compiled = items.iter().enumerate().map(|(index, item)| {
            self.inside(|| index.to_string(), |compiler| compiler.expression(item))
        });
        compiled.collect()
    }

    fn reference(&mut self, name: &Value) -> Result<Expression, CompileError> {
        let Value::String(name) = name else {
            return Err(self.error("must be the name of an evaluator"));
        };
        let evaluator = compile_evaluator(name, self.evaluators);
        // The pointer ends at the reference, wherever in the evaluator the mistake is.
        let evaluator = evaluator.map_err(|error| self.error(error.message))?;
        self.count_in(evaluator.values, evaluator.depth)?;
        if let Expression::Constant(value) = &evaluator.expression
            && is_short(value)
        {
            return Ok(Expression::Constant(value.clone()));
        }
        Ok(self.traced(Expression::Evaluator(evaluator), self.above(), None))
    }

    fn operation(&mut self, operator: &str, arguments: &Value) -> Result<Expression, CompileError> {
        if operator == "$ref" {
            return self.reference(arguments);
        }
        let compiled = match arguments {
            Value::Array(arguments) => self.items(arguments)?,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => vec![self.expression(arguments)?],
        };
        let has_step = self.evaluators.is_traced && operator != "var";
        let step = has_step.then(|| {
            let operands = traced::arguments(operator, arguments, &compiled);
            (operator, operands)
        });
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
            // Nothing is logged: the result is the argument.
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
            _ => return Err(self.error(format!("there is no operator '{operator}'"))),
        };
        let expression = self.fold(expression);
        Ok(self.traced(expression, self.above(), step))
    }

    /// Replaces an operation whose operands are constant by its result. An operation that fails is kept, and fails for
    /// the callers that reach it.
    fn fold(&self, expression: Expression) -> Expression {
        if !all_operands(&expression, &|one| one.constant().is_some()) {
            return expression;
        }
        let context = Context::default();
        let scope = Scope::Context(Input {
            context: &context,
            flag: "",
            hashed_key: &HashedKey::new(self.evaluators.settings.fractional, ""),
            now: 0,
        });
        let is_copied = all_operands(&expression, &|one| !matches!(one, Expression::Evaluator(_)));
        let folded = if is_copied {
            // The result replaces its operands and takes no more memory.
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
        // An empty path always leads to a value, so the default never applies.
        (Some(path), Some(_)) if path.is_empty() => Expression::Var(path),
        (Some(path), Some(default)) => Expression::VarOr(path, Box::new(default)),
        (None, default) => Expression::VarAt(path, default.map(Box::new)),
    }
}

/// The path of a constant text.
fn path_of(expression: &Expression, text: &str) -> Path {
    let make = || Path::new(text);
    if let Expression::Evaluator(evaluator) = expression {
        evaluator.path(make)
    } else {
        make()
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
            if let Expression::Evaluator(evaluator) = first {
                evaluator.names(make)
            } else {
                make()
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
    // A missing body is `null` for every item.
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
    let texts = if let Expression::Evaluator(evaluator) = &*hay {
        evaluator.texts(make)
    } else {
        make()
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

/// Whether an operation depends only on its operands, and `holds` is true for all of them.
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
        | Expression::Variant { .. }
        | Expression::Evaluator(_)
        | Expression::Traced(_)
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
