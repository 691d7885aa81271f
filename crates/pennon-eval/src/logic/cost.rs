//! The cost of an expression: upper bounds of its steps and of the size of its result.

use crate::limits::STEPS;

/// Upper bounds for one expression.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Steps that count against the limit of one evaluation.
    pub(super) steps: u64,
    /// Steps that count against the request only, see
    /// [`Fuel::charge_request_limit`](crate::limits::Fuel::charge_request_limit).
    pub(super) request_steps: u64,
    /// The number of items of the result, if it is a list.
    pub(super) list: u64,
    /// The steps of writing or hashing the result.
    pub(super) text: u64,
    /// The steps of writing or hashing the longest item of the result, which also bounds the number of items of a list
    /// in the result.
    pub(super) item: u64,
}

impl Cost {
    /// All steps of one evaluation, including the text of its result.
    pub(super) fn total(self) -> u64 {
        let steps = self.steps.saturating_add(self.text);
        steps
            .min(u64::from(STEPS))
            .saturating_add(self.request_steps)
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            steps: self.steps.saturating_add(other.steps),
            request_steps: self.request_steps.saturating_add(other.request_steps),
            list: self.list.max(other.list),
            text: self.text.max(other.text),
            item: self.item.max(other.item),
        }
    }

    pub(super) fn times(self, count: u64) -> Self {
        Self {
            steps: self.steps.saturating_mul(count),
            request_steps: self.request_steps.saturating_mul(count),
            ..self
        }
    }

    pub(super) fn plus(self, steps: u64) -> Self {
        Self {
            steps: self.steps.saturating_add(steps),
            ..self
        }
    }

    pub(super) fn plus_request(self, steps: u64) -> Self {
        Self {
            request_steps: self.request_steps.saturating_add(steps),
            ..self
        }
    }

    /// The same steps with another result.
    pub(super) fn giving(self, list: u64, text: u64) -> Self {
        Self {
            list,
            text,
            item: text,
            ..self
        }
    }

    /// The same result, whose items are no longer than this.
    pub(super) fn of_items(self, item: u64) -> Self {
        Self { item, ..self }
    }
}
