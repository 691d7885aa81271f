//! The context of a request: its arrival, its budget and its trace.
//!
//! It imports neither the cache nor the service, so that both can use it. The trace is for the log line and for
//! `X-Unknown-Environment`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::Budget;
use crate::telemetry::Trace;

/// One request's arrival, budget and trace.
#[derive(Debug)]
pub struct RequestContext {
    /// When the request arrived. The state in the response must not be older than this.
    pub arrived: Instant,
    /// The time that the request may spend on the cache.
    pub budget: Budget,
    /// The facts that its log line reports.
    pub trace: Arc<Trace>,
}

impl RequestContext {
    /// A request that arrives now.
    #[must_use]
    pub fn begin(budget: Duration) -> Self {
        Self {
            arrived: Instant::now(),
            budget: Budget::new(budget),
            trace: Arc::default(),
        }
    }

    /// The same request with another budget, for steps that run concurrently.
    #[must_use]
    pub fn with_budget(&self, budget: Duration) -> Self {
        self.with(Budget::new(budget))
    }

    /// The same request with half of the remaining budget, so that one step cannot starve the next.
    #[must_use]
    pub fn with_half_budget(&self) -> Self {
        self.with(self.budget.half())
    }

    fn with(&self, budget: Budget) -> Self {
        Self {
            arrived: self.arrived,
            budget,
            trace: self.trace.clone(),
        }
    }
}
