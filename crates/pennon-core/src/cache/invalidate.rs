//! Invalidation on every Redis of this process: the one that is read, and the mirrors of a migration.

use std::time::Instant;

use super::Cache;
use super::client::{Command, Reply, Script};
use super::executor::Executor;
use crate::environment::Environment;
use crate::request_context::RequestContext;

/// The result of an invalidation.
pub(super) struct Invalidation {
    /// Whether every Redis has confirmed it.
    pub(super) confirmed: bool,
    /// The number of failed attempts, over every Redis.
    pub(super) failures: u32,
}

impl Cache {
    /// Runs a script on every Redis concurrently. The result is confirmed if the script has run on each. The script
    /// after a commit must also be acknowledged by a replica of each cluster whose primary has replicas.
    pub(super) async fn invalidate_all(
        &self,
        script: Script,
        environment: &Environment,
        arguments: &[String],
        context: &RequestContext,
    ) -> Invalidation {
        let Some(target) = self.source.current() else {
            return Invalidation {
                confirmed: false,
                failures: 0,
            };
        };
        let key = self.key(environment);
        let command = Command::Run {
            script,
            key: &key,
            arguments,
        };
        let started = Instant::now();
        let remaining = context.budget.remaining();
        let invalidate = async |executor: &Executor| {
            let own = context.with_budget(remaining);
            let outcome = executor.execute(&command, &own).await;
            let confirmed = match outcome.reply {
                Some(Reply::Number(1)) => true,
                Some(Reply::List(parts)) => match parts.as_slice() {
                    [Reply::Number(1), Reply::Number(1..)] => true,
                    [Reply::Number(1), Reply::Number(_)] => {
                        tracing::warn!(
                            domain = "config",
                            environment = environment.as_str(),
                            "no replica has confirmed an invalidation"
                        );
                        // The node may have lost its replicas, or may never have had one.
                        executor.refresh_topology(&command, &own.budget).await;
                        false
                    }
                    _ => false,
                },
                Some(
                    Reply::Nothing
                    | Reply::Number(_)
                    | Reply::Text(_)
                    | Reply::WrongType
                    | Reply::Malformed,
                )
                | None => false,
            };
            (confirmed, outcome.failures)
        };
        let executors = std::iter::once(&target.read).chain(&target.mirrors);
        let outcomes = futures_util::future::join_all(executors.map(invalidate)).await;
        context.budget.spend(started.elapsed());
        Invalidation {
            confirmed: outcomes.iter().all(|(confirmed, _)| *confirmed),
            failures: outcomes.iter().map(|(_, failed)| failed).sum(),
        }
    }
}
