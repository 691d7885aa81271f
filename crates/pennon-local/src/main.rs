//! Pennon for local use: one process that serves every route on localhost with the handlers that run on
//! Lambda.
//!
//! By default flags are in `flags.json`. With `DATABASE_URL` they are in PostgreSQL, which is migrated first;
//! with `REDIS_URL` Redis caches them.

mod alarms;
mod arguments;
mod browser;
mod credentials;
mod login;
mod role_token;
mod server;
mod settings;
mod throttle;
mod welcome;

use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use pennon_core::alarms::Alarms;
use pennon_core::app::{self, App, connect_cache};
use pennon_core::auth::Role;
use pennon_core::config::{Config, ConfigWarning, SecretSource, process_arguments};
use pennon_core::environment::Environment;
use pennon_core::error::Error;
use pennon_core::eval::FlagKey;
use pennon_core::id::unique_id;
use pennon_core::installation::Installation;
use pennon_core::secrets::Secrets;
use pennon_core::service::FlagService;
use pennon_core::store::{EmbeddedStore, SnapshotUpdate, Store, Waiting};
use pennon_core::telemetry::{LogStyle, LogWriter, ReportedConnections, start_logging};
use pennon_core::webhooks::Sender;

use arguments::Command;
use credentials::Credentials;
use server::Gateway;
use settings::Settings;
use throttle::Throttle;
use welcome::Example;

/// The contents of a new `flags.json`.
const SAMPLE_FLAGS: &str = include_str!("sample-flags.json");

/// Pause between runs of due schedules and ramps: shorter than in production, so that users need not wait for one.
const SCHEDULE_INTERVAL: Duration = Duration::from_secs(2);
/// Pause between comparisons of the cache with the store: shorter than in production, so that users see changes by SQL
/// soon.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(10);
/// Time limit of one run of schedules, of ramps or of comparisons. No further item is begun after it.
const RUN_LIMIT: Duration = Duration::from_secs(15);
/// Pause between writes of evaluation counts: all requests of a second share one write.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let printed = match arguments::parse(&process_arguments()) {
        Ok(Command::Login(options)) => return print_outcome(login::run(*options).await),
        Ok(Command::Token(role)) => return print_outcome(token_of(&role).map(Some)),
        Ok(Command::Help(text)) => Some(text),
        Ok(Command::Version) => Some(arguments::VERSION),
        Ok(Command::Serve) => None,
        Err(why) => {
            let _ignored = writeln!(std::io::stderr(), "{why}");
            return ExitCode::from(2);
        }
    };
    if let Some(text) = printed {
        let _ignored = std::io::stdout().write_all(text.as_bytes());
        return ExitCode::SUCCESS;
    }
    start_logging(LogStyle::Human);
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// The token of a role at the server with the same settings.
fn token_of(role: &Role) -> Result<String, String> {
    let admin_token = credentials::admin_token(Settings::from_process()?)?;
    Ok(role_token::issue(&admin_token, role))
}

/// Prints a line for the shell that runs the command, or the reason of a failure.
fn print_outcome(outcome: Result<Option<String>, String>) -> ExitCode {
    match outcome {
        Ok(line) => {
            let line = line.map_or_else(String::new, |line| format!("{line}\n"));
            let _ignored = std::io::stdout().write_all(line.as_bytes());
            ExitCode::SUCCESS
        }
        Err(why) => {
            let _ignored = writeln!(std::io::stderr(), "{why}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let mut settings = Settings::from_process()?;
    let (mut config, warnings) = Config::from_process();
    for ConfigWarning(text) in warnings {
        tracing::warn!("{text}");
    }
    // This server is for one person's machine, so its callers may evaluate flags for any user.
    config.auth.trust_user_id_parameter = true;
    "local".clone_into(&mut config.stage);

    let listener = tokio::net::TcpListener::bind(&settings.listen)
        .await
        .map_err(|error| {
            format!(
                "cannot listen on {}: {error}; PENNON_LISTEN chooses another address",
                settings.listen
            )
        })?;
    let installation = Arc::new(Installation::named(config.installation.as_deref()));
    let store = open_store(&config, &settings, &installation).await?;
    if matches!(store, Store::Embedded(_)) && config.event_bus.take().is_some() {
        tracing::warn!(
            "EVENT_BUS_NAME has no effect without DATABASE_URL: a flag file has no change events"
        );
    }
    let needs_mac_key = config.cache.is_configured() && config.cache.mac_key == SecretSource::None;
    let credentials = Credentials::open(&mut settings, needs_mac_key)?;
    if let Some(key) = &credentials.mac_key {
        config.cache.mac_key = SecretSource::Plain(key.clone());
    }
    let cache = connect_cache(&config.cache, &Arc::new(Secrets::default()), &installation).await;
    if cache.as_ref().is_some_and(|cache| !cache.has_url()) {
        return Err("the URL of Redis is invalid; the log above has the reason".to_owned());
    }
    // A flag file has no webhooks.
    let has_webhooks = !matches!(store, Store::Embedded(_));
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let example = example_flag(&store).await;
    welcome::greet(address, &settings, &credentials, &config, &example);

    let log_writer = LogWriter {
        style: LogStyle::Human,
        function: "local".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        installation: String::new(),
        reported_connections: ReportedConnections::default(),
    };
    let service = FlagService::new(cache, store, &config);
    let has_cloud_watch = config.cloudwatch_endpoint.is_some();
    let mut app = App::new(config, service, log_writer);
    if !has_cloud_watch {
        app = app.with_alarms(Alarms::Local(Mutex::default()));
    }
    let sender = if settings.webhooks_anywhere {
        Sender::anywhere(None)?
    } else {
        Sender::public()?
    };
    let app = Arc::new(app.with_webhook_sender(sender));
    tokio::spawn(run_schedules(app.clone()));
    if app.service.cache().is_some() {
        tokio::spawn(reconcile(app.clone()));
    }
    if has_webhooks {
        tokio::spawn(deliver_webhooks(app.clone()));
    }
    tokio::spawn(count_regularly(app.clone()));
    let gateway = Gateway {
        listen: settings.listen,
        admin_token: credentials.admin_token,
        api_key: credentials.api_key,
        throttle: settings.evaluations_per_second.map(Throttle::new),
    };
    server::serve(listener, app.clone(), gateway).await?;
    count(&app).await;
    Ok(())
}

/// The flag for the printed commands: that of the README if it exists, otherwise one whose key needs no encoding in a
/// URL and no quotes in a shell, if possible one without a definition.
async fn example_flag(store: &Store) -> Example {
    let of_readme = Example::Simple(welcome::README_KEY.to_owned());
    let production = Environment::production();
    let flags = match store
        .snapshot(&production, None, Waiting::UntilTimeout)
        .await
    {
        Ok(SnapshotUpdate::Changed(snapshot)) => snapshot.flags.clone(),
        Ok(SnapshotUpdate::Unchanged) | Err(_) => return of_readme,
    };
    let is_plain = |key: &str| {
        key.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && !key.starts_with(['-', '.'])
    };
    let mut known: Vec<(&str, bool)> = flags
        .iter()
        .map(|(key, flag)| (key.as_str(), flag.definition.is_none()))
        .filter(|(key, _)| is_plain(key))
        .collect();
    known.sort_by_key(|(key, is_simple)| (*key != welcome::README_KEY, !is_simple));
    match known.first() {
        Some((key, true)) => Example::Simple((*key).to_owned()),
        Some((key, false)) => Example::Typed((*key).to_owned()),
        None => Example::Missing(unused_key(store, &production).await),
    }
}

/// The key of the README, or one like it if an archived flag has that key.
async fn unused_key(store: &Store, environment: &Environment) -> String {
    let mut key = welcome::README_KEY.to_owned();
    let mut number = 1;
    while let Ok(parsed) = FlagKey::parse(&key)
        && let Ok(Some(_)) = store.find_flag(environment, &parsed).await
    {
        number += 1;
        key = format!("{}-{number}", welcome::README_KEY);
    }
    key
}

async fn open_store(
    config: &Config,
    settings: &Settings,
    installation: &Arc<Installation>,
) -> Result<Store, String> {
    match &config.database.url {
        SecretSource::None => {
            let store = EmbeddedStore::open(&settings.flags_file, SAMPLE_FLAGS)?;
            installation.derive(&store.address());
            Ok(Store::Embedded(store))
        }
        SecretSource::Plain(_) => {
            let store = app::open_store(&config.database, &Arc::default(), installation).await;
            let migrated = store
                .migrate(None, false)
                .await
                .map_err(|error| error.to_string())?;
            let defaults = migrated.defaults.name();
            if migrated.applied > 0 {
                tracing::info!(
                    applied = migrated.applied,
                    evaluation_defaults = defaults,
                    "database migrated"
                );
            }
            Ok(store)
        }
        SecretSource::SecretArn(_) => {
            Err("DATABASE_SECRET_ARN is for Lambda; set DATABASE_URL here".to_owned())
        }
    }
}

/// Runs due schedules and ramps, and sends change events, as the function `reconcile` does every minute.
async fn run_schedules(app: Arc<App>) {
    let mut failure = LastFailure::default();
    loop {
        tokio::time::sleep(SCHEDULE_INTERVAL).await;
        if let Some(error) = failure.if_new(run_due(&app).await) {
            tracing::warn!("{error}; schedules, ramps and change events wait");
        }
    }
}

/// Runs due schedules and ramps, and sends change events, until one of them fails: then the store is unavailable or
/// `flags.json` is invalid, and the others would fail for the same reason.
async fn run_due(app: &App) -> Result<(), Error> {
    let budget = app.config.cache.request_budget;
    app.service.run_schedules(budget, RUN_LIMIT).await?;
    app.service
        .run_ramps(app.alarms(), budget, RUN_LIMIT)
        .await?;
    app.service.publish(app.bus(), SCHEDULE_INTERVAL).await?;
    Ok(())
}

/// Compares the cache with the store, as the function `reconcile` does every minute.
async fn reconcile(app: Arc<App>) {
    let mut failure = LastFailure::default();
    let budget = app.config.cache.request_budget;
    loop {
        tokio::time::sleep(RECONCILE_INTERVAL).await;
        if let Some(error) = failure.if_new(app.service.reconcile(budget, RUN_LIMIT).await) {
            tracing::warn!("{error}; not all environments were compared with the cache");
        }
    }
}

/// The last result of work that is repeated every few seconds, if it failed. It keeps a mistake in `flags.json` from
/// being logged every two seconds.
#[derive(Default)]
struct LastFailure(Option<String>);

impl LastFailure {
    /// The reason of a failure, unless the last run failed for the same reason.
    fn if_new<T>(&mut self, result: Result<T, Error>) -> Option<String> {
        let failure = result.err().map(|error| error.to_string());
        let is_new = failure != self.0;
        self.0.clone_from(&failure);
        failure.filter(|_| is_new)
    }
}

/// Sends change events to webhooks, as the function `reconcile` does every minute. In a task of its own, because a
/// receiver that does not respond would delay schedules and ramps.
async fn deliver_webhooks(app: Arc<App>) {
    let mut failure = LastFailure::default();
    loop {
        tokio::time::sleep(SCHEDULE_INTERVAL).await;
        let run = app
            .service
            .deliver_webhooks(app.webhook_transport(), SCHEDULE_INTERVAL);
        if let Some(error) = failure.if_new(run.await) {
            tracing::warn!("cannot send change events to webhooks: {error}");
        }
    }
}

/// Counts evaluations and records uses of keys as `count-evaluations` does, but without a log in between.
async fn count_regularly(app: Arc<App>) {
    loop {
        tokio::time::sleep(COUNT_INTERVAL).await;
        count(&app).await;
    }
}

async fn count(app: &App) {
    let store = app.service.store();
    let uses = app.key_uses.take();
    if !uses.is_empty()
        && let Err(error) = store.record_key_uses(&uses).await
    {
        tracing::warn!(%error, "uses of API keys could not be recorded");
    }
    let counts = app.tally.take();
    if counts.is_empty() {
        return;
    }
    let batch = unique_id();
    let counted = store.count(&batch, &counts, SystemTime::now());
    if let Err(error) = counted.await {
        tracing::warn!(%error, "evaluations could not be counted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_failure_is_logged_once_until_it_changes_or_ends() {
        let failed = |why: &str| Err(Error::StoreFile(why.to_owned()));
        let mut failure = LastFailure::default();
        let logged = [failed("a"), failed("a"), failed("b"), Ok(()), failed("b")]
            .map(|result| failure.if_new(result).is_some());
        assert_eq!(logged, [true, false, true, false, true]);
    }
}
