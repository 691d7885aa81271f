//! The steps that decided an evaluation, for people who ask why a caller gets a value.
//!
//! Evaluations of callers record nothing: [`explain`](crate::explain) compiles a flag in a way that names the place
//! of each operation, and evaluates it with the same code as all other evaluations.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::Bucketing;

/// Limit on the recorded operations. A rule may run 100,000 steps; nobody reads so many.
const MAX_OPERATIONS: usize = 500;
/// Limit on the bytes of all recorded values together, so that every trace fits into a response.
const MAX_BYTES: usize = 200_000;
/// Limit on the recorded operands of one operation.
pub(crate) const MAX_OPERANDS: usize = 50;
/// The maximum number of characters of a text; longer texts are cut.
pub(crate) const SHOWN_CHARACTERS: usize = 100;
/// Replaces the rest of a text or a value that is cut.
pub(crate) const REST: &str = "…";

/// The text, or its beginning if it is long. Names of evaluators have no limit, so they are cut too.
pub(crate) fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
    if shown.len() < text.len() {
        shown.push_str(REST);
    }
    shown
}

/// One decision on the way to a value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(
    tag = "step",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Step {
    /// Whether the flag is enabled. A disabled simple flag is off for all callers; a disabled flag with variants has no
    /// value.
    Enabled {
        /// The switch.
        result: bool,
    },
    /// The stored data that the value depends on is unreadable. If it is readable, this step is absent.
    Readable {
        /// Why it is not.
        reason: String,
    },
    /// The override of the caller.
    Override {
        /// `include`, `exclude`, `variant`, or null for a caller without one.
        result: Option<&'static str>,
        /// The variant that it names.
        #[serde(skip_serializing_if = "Option::is_none")]
        variant: Option<String>,
    },
    /// A rollout of 0 or 100 %, which needs no targeting key.
    Rollout {
        /// The percentage.
        percent: u8,
        /// Whether the flag is on.
        result: bool,
    },
    /// The bucket of the caller: the flag is on for buckets below the percentage.
    Bucket {
        /// From 0 to 99; null for a caller without a targeting key, who has no bucket.
        bucket: Option<u8>,
        /// The rollout percentage.
        percent: u8,
        /// The hash function that gives the bucket.
        bucketing: Bucketing,
        /// The salt of the flag.
        #[serde(skip_serializing_if = "Option::is_none")]
        salt: Option<String>,
        /// Whether the flag is on; null without a bucket.
        result: Option<bool>,
    },
    /// An operation of the rule.
    Operation(Box<OperationStep>),
    /// Operations that were evaluated and are not listed, because there are too many.
    Omitted {
        /// Their number.
        operations: usize,
    },
    /// The default variant applies.
    Default {
        /// Its name; null if the application uses its own default.
        variant: Option<String>,
    },
}

/// An operation of the rule, or of an evaluator to which it refers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationStep {
    /// The evaluator in which it is written, shortened if its name is long; absent for the rule itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluator: Option<String>,
    /// A JSON pointer to the operation, into `targeting` or the evaluator.
    pub pointer: String,
    /// The operator.
    pub operator: String,
    /// How deep it is nested in other operations.
    pub depth: usize,
    /// The operands in their order.
    pub operands: Vec<Operand>,
    /// The result; absent if the operation failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How `fractional` chose; absent for other operators and for invalid weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fractional: Option<FractionalStep>,
}

/// An operand. Long values are shortened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Operand {
    /// Its value: a constant, the result of an operation, or a bucket of `fractional` as it is written.
    Value(Value),
    /// It has no value: it was not evaluated, because the result does not depend on it, or its evaluation failed.
    /// Always true.
    Skipped(bool),
}

/// How `fractional` chose. The caller gets the first variant whose limit is above their bucket.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FractionalStep {
    /// From 0 to `total` - 1; null without a valid bucketing value, such as for a caller without a targeting key.
    pub bucket: Option<u64>,
    /// The sum of all weights; 0 if they were not computed.
    pub total: u64,
    /// The first variants, at most 50, each with the sum of all weights up to its own.
    pub variants: Vec<VariantLimit>,
}

/// A variant of `fractional`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VariantLimit {
    /// Its name; null if it was not computed.
    pub variant: Value,
    /// Its limit.
    pub limit: u64,
}

/// An operation, a reference to an evaluator, or a list that is not constant.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    /// The evaluator in which it is written.
    pub(crate) evaluator: Option<Arc<str>>,
    pub(crate) pointer: String,
    /// `None` for a `var`, a reference or a list: they have no step, and their values are shown as operands only.
    pub(crate) operator: Option<String>,
    /// The operands that are shown.
    pub(crate) arguments: Arc<[Argument]>,
}

/// An operand in the text of the rule.
#[derive(Debug, Clone)]
pub(crate) enum Argument {
    /// A value that is shown as it is written, and the bytes that it takes in a trace.
    Written(Value, usize),
    /// An [`Operation`] at this pointer, in the same text as the operation around it.
    Operation(String),
}

/// The steps of one evaluation.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    steps: Vec<Step>,
    open: Vec<Frame>,
    operations: usize,
    omitted: usize,
    bytes: usize,
}

/// An operation that is being evaluated.
#[derive(Debug, Default)]
struct Frame {
    /// The place of its step, if it is recorded.
    step: Option<usize>,
    /// Its operands, if it is recorded.
    arguments: Arc<[Argument]>,
    /// The results of the operands that were evaluated.
    results: Vec<Option<Value>>,
}

impl Trace {
    pub(crate) fn add(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Counts the bytes of a value. Returns false once the values exceed the limit; the value is then not recorded.
    pub(crate) fn has_room_for(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.bytes <= MAX_BYTES
    }

    /// Begins an operation.
    pub(crate) fn begin(&mut self, operation: &Operation) {
        let mut frame = Frame::default();
        if let Some(operator) = &operation.operator {
            if self.operations < MAX_OPERATIONS {
                self.operations += 1;
                frame.step = Some(self.steps.len());
                frame.arguments = Arc::clone(&operation.arguments);
                frame.results = vec![None; operation.arguments.len()];
                let depth = self.open.iter().filter(|frame| frame.step.is_some());
                self.steps.push(Step::Operation(Box::new(OperationStep {
                    evaluator: operation.evaluator.as_deref().map(cut),
                    pointer: operation.pointer.clone(),
                    operator: operator.clone(),
                    depth: depth.count(),
                    operands: Vec::new(),
                    result: None,
                    error: None,
                    fractional: None,
                })));
            } else {
                self.omitted += 1;
            }
        }
        self.open.push(frame);
    }

    /// Ends the operation that was begun last.
    pub(crate) fn end(&mut self, operation: &Operation, outcome: Result<Value, String>) {
        let Some(frame) = self.open.pop() else {
            return;
        };
        if let Some(step) = frame.step {
            let operands = self.operands(frame);
            if let Some(Step::Operation(step)) = self.steps.get_mut(step) {
                step.operands = operands;
                match &outcome {
                    Ok(value) => step.result = Some(value.clone()),
                    Err(error) => step.error = Some(error.clone()),
                }
            }
        }
        if let Ok(value) = outcome {
            self.note(operation, value);
        }
    }

    /// Records the result of an operation, if it is an operand of the one around it. A list operator evaluates its body
    /// once for each item; the last result remains.
    pub(crate) fn note(&mut self, operation: &Operation, value: Value) {
        if let Some(frame) = self.open.last_mut()
            && let Some(place) = frame.arguments.iter().position(|argument| {
                matches!(argument, Argument::Operation(pointer) if *pointer == operation.pointer)
            })
        {
            frame.results[place] = Some(value);
        }
    }

    /// Records how the present operation, a `fractional`, chose.
    pub(crate) fn fractional(&mut self, fractional: FractionalStep) {
        let step = self.open.last().and_then(|frame| frame.step);
        if let Some(Step::Operation(step)) = step.and_then(|step| self.steps.get_mut(step)) {
            step.fractional = Some(fractional);
        }
    }

    fn operands(&mut self, frame: Frame) -> Vec<Operand> {
        /// Bytes of the JSON around a value.
        const AROUND: usize = 16;
        let mut operands = Vec::new();
        for (argument, result) in frame.arguments.iter().zip(frame.results) {
            let (value, bytes) = match argument {
                Argument::Written(value, bytes) => (Some(value.clone()), *bytes),
                // Its result was counted when it was recorded.
                Argument::Operation(_) => (result, 0),
            };
            if !self.has_room_for(AROUND + bytes) {
                break;
            }
            operands.push(value.map_or(Operand::Skipped(true), Operand::Value));
        }
        operands
    }

    /// All steps.
    pub(crate) fn finish(mut self) -> Vec<Step> {
        if self.omitted > 0 {
            self.steps.push(Step::Omitted {
                operations: self.omitted,
            });
        }
        self.steps
    }
}
