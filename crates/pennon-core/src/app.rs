//! The cold start: creates the parts of an instance once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing::warn;

use crate::alarms::Alarms;
use crate::cache::Cache;
use crate::config::{
    CacheConfig, Config, ConfigWarning, DatabaseConfig, SecretSource, process_environment,
};
use crate::counts::Tally;
use crate::events::EventBus;
use crate::installation::Installation;
use crate::key_uses::KeyUses;
use crate::secrets::Secrets;
use crate::service::FlagService;
use crate::store::{PostgresStore, Store};
use crate::telemetry::{LogStyle, LogWriter, ReportedConnections, start_logging};
use crate::token::Tokens;
use crate::webhooks::{Sender, Transport};

/// Time limit of the first connection to Redis, so that an unreachable Redis delays the first response by less than
/// half a second.
const FIRST_CONNECT: Duration = Duration::from_millis(450);

/// The parts of an instance that requests share.
pub struct App {
    /// The settings.
    pub config: Config,
    /// Reads and changes flags.
    pub service: FlagService,
    /// Writes log lines of requests.
    pub log_writer: LogWriter,
    /// Evaluations that have not been logged yet.
    pub tally: Tally,
    /// Uses of API keys that have not been logged yet.
    pub key_uses: KeyUses,
    /// Verifies the tokens of callers, if an issuer is configured and `JWT_CA_FILE` is valid.
    pub tokens: Option<Tokens>,
    alarms: OnceLock<Alarms>,
    bus: OnceLock<Option<EventBus>>,
    webhook_transport: OnceLock<Transport>,
    first_request_logged: AtomicBool,
}

impl App {
    /// Creates an app from its parts.
    #[must_use]
    pub fn new(config: Config, service: FlagService, log_writer: LogWriter) -> Self {
        let tokens = config.tokens.clone().and_then(|tokens| {
            Tokens::new(tokens)
                .inspect_err(|why| {
                    tracing::error!(
                        domain = "config",
                        error = %why,
                        "JWT_CA_FILE is invalid; callers of public routes are anonymous"
                    );
                })
                .ok()
        });
        Self {
            config,
            service,
            log_writer,
            tally: Tally::default(),
            key_uses: KeyUses::default(),
            tokens,
            alarms: OnceLock::new(),
            bus: OnceLock::new(),
            webhook_transport: OnceLock::new(),
            first_request_logged: AtomicBool::new(false),
        }
    }

    /// The cold start of a function: reads the settings from the environment, and opens the cache and the store.
    ///
    /// Never fails. The instance runs without a part that cannot be created, and the log states the reason.
    pub async fn cold_start() -> Self {
        let style = match process_environment("AWS_LAMBDA_LOG_FORMAT").as_deref() {
            Some("Text") => LogStyle::Human,
            Some(_) | None => LogStyle::Json,
        };
        start_logging(style);
        let (config, warnings) = Config::from_process();
        for ConfigWarning(text) in warnings {
            warn!(domain = "config", "{text}");
        }
        let name = |variable: &str| process_environment(variable).unwrap_or_default();
        let log_writer = LogWriter {
            style,
            function: name("AWS_LAMBDA_FUNCTION_NAME"),
            version: name("AWS_LAMBDA_FUNCTION_VERSION"),
            installation: config
                .installation
                .clone()
                .unwrap_or_else(|| "none".to_owned()),
            reported_connections: ReportedConnections::default(),
        };
        let secrets = Arc::new(Secrets::default());
        let installation = Arc::new(Installation::named(config.installation.as_deref()));
        let (cache, store) = tokio::join!(
            connect_cache(&config.cache, &secrets, &installation),
            open_store(&config.database, &secrets, &installation)
        );
        let service = FlagService::new(cache, store, &config);
        Self::new(config, service, log_writer)
    }

    /// Writes the metric of forged cache entries, if any were found since the last report.
    pub fn report_forged_entries(&self) {
        let found = self.service.cache().map_or(0, Cache::take_forged_entries);
        if found > 0 {
            self.log_writer.write_forged_entries(found);
        }
    }

    /// The source of the alarms of ramps. Created on first use, because most functions never use it.
    pub fn alarms(&self) -> &Alarms {
        self.alarms
            .get_or_init(|| Alarms::cloud_watch(self.config.cloudwatch_endpoint.as_deref()))
    }

    /// Replaces the source of alarms: the local server has its own.
    #[must_use]
    pub fn with_alarms(self, alarms: Alarms) -> Self {
        Self {
            alarms: OnceLock::from(alarms),
            ..self
        }
    }

    /// The event bus that receives change events, if one is configured. Created at the first use, because
    /// functions that only read never use it.
    pub fn bus(&self) -> Option<&EventBus> {
        let open = || self.config.event_bus.clone().map(EventBus::new);
        self.bus.get_or_init(open).as_ref()
    }

    /// The transport of requests to webhooks. Created on first use, because most functions never use it.
    pub fn webhook_transport(&self) -> &Transport {
        self.webhook_transport
            .get_or_init(|| Transport::of_function(self.config.send_webhooks_function.as_deref()))
    }

    /// Makes this process itself send the requests to webhooks, instead of the function `send-webhooks`.
    #[must_use]
    pub fn with_webhook_sender(self, sender: Sender) -> Self {
        Self {
            webhook_transport: OnceLock::from(Transport::Direct(sender)),
            ..self
        }
    }

    /// Whether no request of this instance has been logged yet. Each later call returns `false`.
    pub fn is_first_request(&self) -> bool {
        !self.first_request_logged.swap(true, Ordering::Relaxed)
    }
}

/// Opens the cache, if Redis is configured.
pub async fn connect_cache(
    config: &CacheConfig,
    secrets: &Arc<Secrets>,
    installation: &Arc<Installation>,
) -> Option<Cache> {
    Cache::open(config, secrets, installation, FIRST_CONNECT).await
}

/// Opens the store, if PostgreSQL is configured. It connects when it is first used.
pub async fn open_store(
    config: &DatabaseConfig,
    secrets: &Arc<Secrets>,
    installation: &Arc<Installation>,
) -> Store {
    match config.url {
        SecretSource::Plain(_) | SecretSource::SecretArn(_) => {
            let store = PostgresStore::open(config, secrets, installation).await;
            Store::Postgres(Box::new(store))
        }
        // Not logged here, because some functions need no database. The others report it with each error.
        SecretSource::None => Store::Absent(
            "no database is configured; set DATABASE_URL or DATABASE_SECRET_ARN".to_owned(),
        ),
    }
}
