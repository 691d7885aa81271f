//! What a rule is compiled to.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use super::evaluators::Shared;
use super::fractional::Fractional;
use super::path::Path;

/// One node of a compiled rule.
#[derive(Debug, Clone)]
pub(super) enum Expression {
    Constant(Value),
    /// An evaluator, which stands here as if it were written out.
    Shared(Arc<Shared>),
    /// A list with something in it to compute.
    List(Vec<Expression>),
    Var(Path),
    /// `var` with a default.
    VarOr(Path, Box<Expression>),
    /// `var` whose path is computed.
    VarAt(Box<Expression>, Option<Box<Expression>>),
    /// `missing` with fixed names.
    Missing(Arc<[Path]>),
    MissingOf(Vec<Expression>),
    MissingSome(Box<Expression>, Box<Expression>),
    If(Vec<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    /// Whether it is true as a condition (`!!`), or not (`!`).
    Truth(Box<Expression>, bool),
    /// `==` and its relatives.
    Equal {
        a: Box<Expression>,
        b: Box<Expression>,
        is_strict: bool,
        /// What the answer is when they are equal.
        when_equal: bool,
    },
    Order {
        a: Box<Expression>,
        b: Box<Expression>,
        /// The third one of "between".
        c: Option<Box<Expression>>,
        order: Order,
    },
    Sum(Vec<Expression>),
    Product(Vec<Expression>),
    Negative(Box<Expression>),
    Difference(Box<Expression>, Box<Expression>),
    Quotient(Box<Expression>, Box<Expression>),
    Remainder(Box<Expression>, Box<Expression>),
    Minimum(Vec<Expression>),
    Maximum(Vec<Expression>),
    Each {
        list: Box<Expression>,
        body: Box<Expression>,
        each: Each,
    },
    Reduce {
        list: Box<Expression>,
        body: Box<Expression>,
        initial: Box<Expression>,
    },
    Merge(Vec<Expression>),
    In(Box<Expression>, Box<Expression>),
    /// `in` over many fixed texts.
    InTexts(Box<Expression>, Arc<Texts>),
    Cat(Vec<Expression>),
    Substr {
        text: Box<Expression>,
        from: Box<Expression>,
        length: Option<Box<Expression>>,
    },
    Affix {
        text: Box<Expression>,
        affix: Box<Expression>,
        /// `ends_with`, not `starts_with`.
        is_end: bool,
    },
    SemVer(Box<[Expression; 3]>),
    Fractional(Box<Fractional>),
}

/// Fixed texts to look among.
#[derive(Debug, Clone)]
pub(super) enum Texts {
    /// Quicker to walk than to hash for.
    Few(Vec<Box<str>>),
    Many(HashSet<Box<str>>),
}

impl Texts {
    /// Up to so many are few.
    const FEW: usize = 8;

    pub(super) fn new(texts: Vec<Box<str>>) -> Self {
        if texts.len() <= Self::FEW {
            Self::Few(texts)
        } else {
            Self::Many(texts.into_iter().collect())
        }
    }

    #[inline]
    pub(super) fn contains(&self, text: &str) -> bool {
        match self {
            Self::Few(texts) => texts.iter().any(|one| **one == *text),
            Self::Many(texts) => texts.contains(text),
        }
    }
}

/// The four orders.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// What happens with what the body says of each item.
#[derive(Debug, Clone, Copy)]
pub(super) enum Each {
    Map,
    Filter,
    All,
    Some,
    None,
}

impl Expression {
    pub(super) const NULL: Self = Self::Constant(Value::Null);

    /// The expression itself: of an evaluator, what it stands for.
    #[inline]
    pub(super) fn written_out(&self) -> &Self {
        let mut expression = self;
        while let Self::Shared(shared) = expression {
            expression = &shared.expression;
        }
        expression
    }

    #[inline]
    pub(super) fn constant(&self) -> Option<&Value> {
        if let Self::Constant(value) = self.written_out() {
            Some(value)
        } else {
            None
        }
    }
}
