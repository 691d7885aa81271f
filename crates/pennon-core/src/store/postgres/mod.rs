//! Flags in PostgreSQL: the only home of tokio-postgres and deadpool, with `migrations` and
//! `postgres_url` beside it. Here is the pool, and how long anything may take; the questions are beside
//! it, a file per noun.

mod audit;
mod counts;
mod environments;
mod flags;
mod keys;
mod overrides;
mod snapshot;
mod transaction;

use std::future::Future;
use std::time::{Duration, Instant};

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts,
};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

pub(super) use transaction::Transaction;

use super::postgres_url::{DatabaseUrl, TlsMode};
use super::{COMMIT_WITHIN, migrations};
use crate::breaker::{Breaker, Permit};
use crate::config::DatabaseConfig;
use crate::environment::Environment;
use crate::error::Error;
use crate::tls;

/// The authorities that sign the certificates of RDS and of RDS Proxy, as AWS publishes them.
const RDS_AUTHORITIES: &[u8] = include_bytes!("../../../certs/rds.pem");
/// A connection that has idled longer is asked whether it lives before it is used: instances are
/// frozen between requests, and what lies in between forgets connections. Under load, where the
/// question would cost most, connections idle for less.
const IDLE_LIMIT: Duration = Duration::from_secs(1);
/// An answer to `SELECT 1` takes one round trip; after this long there is nobody there.
const CHECK_WITHIN: Duration = Duration::from_millis(150);

/// A parameter of a statement, and its type: statements are sent in one round trip, without asking the
/// database first what it makes of them.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A few connections to PostgreSQL, opened when first needed.
pub struct PostgresStore {
    pool: Pool,
    operation_timeout: Duration,
    reads: Breaker,
}

impl PostgresStore {
    /// Prepares a pool. Nothing is connected: an instance with a warm cache never needs to.
    ///
    /// # Errors
    /// A sentence for the log when the authorities of the certificate cannot be read.
    pub fn new(url: &DatabaseUrl, config: &DatabaseConfig) -> Result<Self, String> {
        let mut connect = url.config.clone();
        connect
            .connect_timeout(config.connect_timeout)
            .tcp_user_timeout(config.operation_timeout);
        if connect.get_application_name().is_none() {
            connect.application_name("pennon");
        }
        let recycling = ManagerConfig {
            // Checked by the hook below, and only after an idle spell.
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = match &url.tls {
            TlsMode::Disable => Manager::from_config(connect, NoTls, recycling),
            TlsMode::VerifyFull(ca_file) => {
                connect.ssl_mode(tokio_postgres::config::SslMode::Require);
                let authorities = match ca_file {
                    Some(path) => tls::Authorities::File(path),
                    None => tls::Authorities::Pem(RDS_AUTHORITIES),
                };
                let tls = MakeRustlsConnect::new(tls::client_config(&authorities)?);
                Manager::from_config(connect, tls, recycling)
            }
        };
        let settings = format!(
            "set timezone = 'UTC'; set statement_timeout = {}; \
             set idle_in_transaction_session_timeout = {}",
            config.operation_timeout.as_millis(),
            COMMIT_WITHIN.as_millis()
        );
        let pool = Pool::builder(manager)
            .max_size(config.pool_size)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(config.operation_timeout),
                create: Some(config.connect_timeout),
                recycle: Some(CHECK_WITHIN),
            })
            .post_create(Hook::async_fn(move |client, _metrics| {
                let settings = settings.clone();
                Box::pin(async move {
                    client
                        .batch_execute(&settings)
                        .await
                        .map_err(HookError::Backend)
                })
            }))
            .pre_recycle(Hook::async_fn(|client, metrics| {
                let idle = metrics.last_used();
                Box::pin(async move {
                    if idle < IDLE_LIMIT {
                        return Ok(());
                    }
                    // deadpool's own limit for recycling does not include this hook.
                    tokio::time::timeout(CHECK_WITHIN, client.batch_execute("select 1"))
                        .await
                        .map_err(|_elapsed| HookError::message("no answer in time"))?
                        .map_err(HookError::Backend)
                })
            }))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            pool,
            operation_timeout: config.operation_timeout,
            reads: Breaker::default(),
        })
    }

    pub(super) async fn begin(
        &self,
        environment: &Environment,
        actor: &str,
    ) -> Result<Transaction, Error> {
        let begin = async {
            let client = Object::take(self.client().await?);
            Transaction::begin(client, environment, actor, self.operation_timeout).await
        };
        self.in_time(begin).await
    }

    pub(super) async fn migrate(&self) -> Result<usize, Error> {
        let client = self.pool.get().await.map_err(|error| unavailable(&error))?;
        // A step may well take longer than a request.
        client
            .batch_execute("set statement_timeout = 0")
            .await
            .map_err(|error| unavailable(&error))?;
        let outcome = migrations::run(&client).await;
        // The connection goes, and its settings with it.
        drop(Object::take(client));
        outcome.map_err(|error| Error::Internal(format!("migration failed: {}", chain(&error))))
    }

    pub(super) async fn ping(&self, within: Duration) -> Result<(), String> {
        let ping = async {
            let client = self.pool.get().await.map_err(|error| chain(&error))?;
            client
                .batch_execute("select 1")
                .await
                .map_err(|error| chain(&error))
        };
        tokio::time::timeout(within, ping)
            .await
            .unwrap_or_else(|_elapsed| Err("no answer in time".to_owned()))
    }

    /// The rows that a question leads to, past the breaker and in time.
    async fn rows(&self, statement: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Error> {
        self.guarded(async {
            let client = self.client().await?;
            client
                .query_typed(statement, parameters)
                .await
                .map_err(|error| unavailable(&error))
        })
        .await
    }

    async fn client(&self) -> Result<Object, Error> {
        self.pool.get().await.map_err(|error| unavailable(&error))
    }

    /// A read, past the breaker and in time.
    async fn guarded<T>(&self, read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if self.reads.permit(Instant::now()) == Permit::Refused {
            return Err(Error::Unavailable(
                "the database did not answer a moment ago".to_owned(),
            ));
        }
        let outcome = self.in_time(read).await;
        match &outcome {
            Err(Error::Unavailable(_)) => self.reads.failed(Instant::now()),
            Ok(_) | Err(_) => {
                self.reads.succeeded();
            }
        }
        outcome
    }

    /// Gives up when the client waits longer than the database should take. A connection that is
    /// given up on is not used again: dropping the future drops it in the middle of a query, and
    /// the check before its next use would wait behind that query.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match tokio::time::timeout(self.operation_timeout, work).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                self.pool.retain(|_, _| false);
                Err(Error::Unavailable(
                    "the database did not answer in time".to_owned(),
                ))
            }
        }
    }
}

/// A count as PostgreSQL gives it.
fn count(row: &Row, column: &str) -> u64 {
    u64::try_from(row.get::<_, i64>(column)).unwrap_or(0)
}

/// What is in the database and makes no sense is a defect, ours or somebody's who wrote there by hand.
fn damaged(error: &dyn std::error::Error) -> Error {
    Error::Internal(format!("a row makes no sense: {}", chain(error)))
}

fn unavailable(error: &dyn std::error::Error) -> Error {
    Error::Unavailable(format!("database: {}", chain(error)))
}

/// An error with its causes. PostgreSQL's own texts name tables and hosts, never a password.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
