//! Connections to PostgreSQL: opened when first needed, checked after an idle spell, and opened with
//! what the secret says now when its password was rotated or it could not be had before.
//!
//! A connection is opened without settings of its own. Behind PgBouncer or RDS Proxy in transaction mode
//! each transaction may run on another server connection, so a setting of the session would be lost, or
//! reach another client of the pooler; PgBouncer also refuses most settings in the startup message.
//! Limits are set by each transaction, see `postgres`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
    Timeouts,
};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::postgres::unavailable;
use super::postgres_url::{DatabaseUrl, TlsMode};
use crate::config::{DatabaseConfig, UrlSource};
use crate::error::Error;
use crate::installation::Installation;
use crate::secrets::Secrets;
use crate::tls;

/// The authorities that sign the certificates of RDS and of RDS Proxy, as AWS publishes them.
const RDS_AUTHORITIES: &[u8] = include_bytes!("../../certs/rds.pem");
/// A connection that has idled longer is asked whether it lives before it is used: instances are
/// frozen between requests, and what lies in between forgets connections. Under load, where the
/// question would cost most, connections idle for less.
const IDLE_LIMIT: Duration = Duration::from_secs(1);
/// An answer to `SELECT 1` takes one round trip; after this long there is nobody there.
const CHECK_WITHIN: Duration = Duration::from_millis(150);
/// A secret that did not help is not asked for again before. A rotation is over in seconds, and an
/// instance that asks more often only adds to the account's quota of calls.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Where connections come from.
pub(super) struct Connections {
    config: DatabaseConfig,
    secrets: Arc<Secrets>,
    installation: Arc<Installation>,
    state: Mutex<State>,
    /// Held while the secret is asked for.
    asking: tokio::sync::Mutex<()>,
}

struct State {
    /// The pool, or why there is none.
    pool: Result<Pool, String>,
    /// When the secret was last asked for.
    asked: Instant,
}

impl Connections {
    /// Finds out where the database is. Nothing is connected: an instance with a warm cache never
    /// needs to. A URL that cannot be had or understood is a log line.
    pub(super) async fn find(
        config: &DatabaseConfig,
        secrets: &Arc<Secrets>,
        installation: &Arc<Installation>,
    ) -> Self {
        let pool = find_pool(config, secrets, installation).await;
        if let Err(why) = &pool {
            tracing::error!(domain = "config", error = %why, "the database cannot be had");
        }
        Self {
            config: config.clone(),
            secrets: secrets.clone(),
            installation: installation.clone(),
            state: Mutex::new(State {
                pool,
                asked: Instant::now(),
            }),
            asking: tokio::sync::Mutex::new(()),
        }
    }

    /// A connection that works as far as anyone can tell.
    pub(super) async fn get(&self) -> Result<Object, Error> {
        let why = match self.current() {
            Ok(pool) => match pool.get().await {
                Ok(connection) => return Ok(connection),
                Err(refused) if is_wrong_password(&refused) => unavailable(&refused),
                Err(failure) => return Err(unavailable(&failure)),
            },
            Err(why) => Error::Unavailable(why),
        };
        match self.ask_again().await {
            Some(pool) => pool.get().await.map_err(|failure| unavailable(&failure)),
            None => Err(why),
        }
    }

    /// Drops the connections that nobody uses.
    pub(super) fn forget_idle(&self) {
        if let Ok(pool) = self.current() {
            pool.retain(|_, _| false);
        }
    }

    /// A pool by what the secret says now, if there is a secret and it may be asked again.
    async fn ask_again(&self) -> Option<Pool> {
        match &self.config.url {
            UrlSource::SecretArn(_) => {}
            UrlSource::Plain(_) | UrlSource::None => return None,
        }
        let waited_from = Instant::now();
        let _asking = self.asking.lock().await;
        {
            let mut state = self.lock();
            if state.asked > waited_from {
                // Somebody else has asked while this one waited.
                return state.pool.as_ref().ok().cloned();
            }
            if state.asked.elapsed() < ASK_AGAIN_AFTER {
                return None;
            }
            // Noted first: a request that gives up on the answer has asked all the same.
            state.asked = Instant::now();
        }
        match find_pool(&self.config, &self.secrets, &self.installation).await {
            Ok(pool) => {
                tracing::info!(domain = "config", "the database's secret was read again");
                self.lock().pool = Ok(pool.clone());
                Some(pool)
            }
            Err(why) => {
                tracing::error!(domain = "config", error = %why, "the database cannot be had");
                None
            }
        }
    }

    fn current(&self) -> Result<Pool, String> {
        self.lock().pool.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the database wants another password, or another user, than the secret said.
fn is_wrong_password(failure: &PoolError) -> bool {
    let code = match failure {
        PoolError::Backend(error) => error.code(),
        _ => None,
    };
    code.is_some_and(|code| {
        *code == SqlState::INVALID_PASSWORD
            || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
    })
}

async fn find_pool(
    config: &DatabaseConfig,
    secrets: &Secrets,
    installation: &Installation,
) -> Result<Pool, String> {
    let Some(url) = secrets.resolve(&config.url).await? else {
        // No log line comes of this: a function that reads no flags needs no database.
        return Err("set DATABASE_URL or DATABASE_SECRET_ARN".to_owned());
    };
    let url = DatabaseUrl::parse(url.expose(), &config.elsewhere)
        .map_err(|invalid| format!("Invalid DATABASE_URL: {invalid}"))?;
    installation.derive(&url.address());
    build(&url, config)
}

fn build(url: &DatabaseUrl, config: &DatabaseConfig) -> Result<Pool, String> {
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
    Pool::builder(manager)
        .max_size(config.pool_size)
        .runtime(Runtime::Tokio1)
        .timeouts(Timeouts {
            wait: Some(config.operation_timeout),
            create: Some(config.connect_timeout),
            recycle: Some(CHECK_WITHIN),
        })
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
        .map_err(|error| error.to_string())
}
