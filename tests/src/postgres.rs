//! One PostgreSQL server for all tests, and a database per test.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use pennon_core::app::open_store;
use pennon_core::config::Config;
use pennon_core::eval::EvaluationDefaults;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::TIME_LIMIT;
use crate::certificates::Certificates;
use crate::process::{Process, find_program, free_port, new_folder};

const ADVICE: &str = "Install it with `apt-get install postgresql` or `brew install postgresql`, \
                      or run `scripts/test`, which does.";
/// A migrated database. Copying it is faster than migrating each database.
const TEMPLATE: &str = "pennon_template";

/// A PostgreSQL server of one test, which may stop or freeze it.
pub struct Server {
    process: Option<Process>,
    port: u16,
    folder: PathBuf,
    extra: Vec<String>,
}

impl Server {
    /// Creates and starts a server. `extra` are settings as on the command line of `postgres`. `prepare` gets the
    /// folder of the server before its first start.
    pub async fn start(extra: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = new_folder("postgres");
        let data = folder.join("data");
        hand_over(&folder);
        let initdb = run_as_owner(&program("initdb"))
            .args([
                "--auth",
                "trust",
                "--username",
                "pennon",
                "--encoding",
                "UTF8",
            ])
            .args(["--no-sync", "--locale", "C", "--pgdata"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(initdb.status.success(), "initdb: {initdb:?}");
        prepare(&folder);
        let mut server = Self {
            process: None,
            port: free_port(),
            folder,
            extra: extra.iter().map(|text| (*text).to_owned()).collect(),
        };
        server.restart().await;
        server
    }

    /// Creates and starts a server that also accepts encrypted connections, with this certificate.
    pub async fn start_encrypted(certificates: &Certificates) -> Self {
        let settings = [
            "ssl=on",
            "ssl_cert_file=server.pem",
            "ssl_key_file=server.key",
        ];
        Self::start(&settings, |folder| {
            for name in ["server.pem", "server.key"] {
                let copy = folder.join("data").join(name);
                std::fs::copy(certificates.file(name), &copy).expect("copies");
                // PostgreSQL does not read a key that others may read.
                let private = Permissions::from_mode(0o600);
                std::fs::set_permissions(&copy, private).expect("sets");
                hand_over(&copy);
            }
        })
        .await
    }

    /// Starts it (again) on the same port, and waits until it responds.
    pub async fn restart(&mut self) {
        let mut command = run_as_owner(&program("postgres"));
        command
            .arg("-D")
            .arg(self.folder.join("data"))
            .args(["-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", "max_connections=200"])
            // Tests compare `current_date` with the days of counts, which are those of UTC.
            .args(["-c", "timezone=UTC"])
            // Speed over durability: these databases exist for seconds.
            .args(["-c", "fsync=off", "-c", "synchronous_commit=off"])
            // The write-ahead log grows by the size of each new database, and by default PostgreSQL keeps 1 GB of it.
            .args(["-c", "wal_level=minimal", "-c", "max_wal_senders=0"])
            .args(["-c", "max_wal_size=128MB"]);
        for setting in &self.extra {
            command.args(["-c", setting]);
        }
        let log = self.folder.join("postgres.log");
        let process = Process::start(&command, &log, None);
        let deadline = std::time::Instant::now() + TIME_LIMIT;
        while connect(&self.url("postgres")).await.is_err() {
            assert!(
                std::time::Instant::now() < deadline,
                "postgres does not answer: {}",
                process.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.process = Some(process);
    }

    /// The process, to freeze and thaw it. Backends are separate processes and keep running.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// SIGKILL. Its backends notice and exit.
    pub fn kill(&mut self) {
        self.process = None;
        let _stale = std::fs::remove_file(self.folder.join("data/postmaster.pid"));
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder with its data and its log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        url(self.port, database)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process = None;
        let _already_gone = std::fs::remove_dir_all(&self.folder);
    }
}

/// A database of one test on the shared server. It is dropped with this value, because a thousand of them need 9 GB.
pub struct Database {
    name: String,
    port: u16,
    client: Client,
}

impl Database {
    /// A migrated database without flags.
    pub async fn create() -> Self {
        Self::create_from(TEMPLATE).await
    }

    /// Creates a database without tables.
    pub async fn create_empty() -> Self {
        Self::create_from("template0").await
    }

    async fn create_from(template: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let shared = shared().await;
        let admin = connect(&url(shared.port, "postgres"))
            .await
            .expect("connects");
        admin
            .batch_execute(&format!(
                "create database {name} template {template}{}",
                shared.strategy
            ))
            .await
            .expect("a database");
        let client = connect(&url(shared.port, &name)).await.expect("connects");
        // A statement that waits for a lock fails its test instead of hanging it.
        let limit = format!("set statement_timeout = '{}s'", 3 * TIME_LIMIT.as_secs());
        client.batch_execute(&limit).await.expect("a limit");
        Self {
            name,
            port: shared.port,
            client,
        }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        url(self.port, &self.name)
    }

    /// Its URL through another port, such as that of a wire.
    pub fn url_by(&self, port: u16) -> String {
        url(port, &self.name)
    }

    /// The port of the server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its name, unique in this run: used in the names of roles, which all databases of a server share.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A connection to inspect it, and to change it without the service.
    pub fn sql(&self) -> &Client {
        &self.client
    }

    /// Adds a flag to production.
    pub async fn add_flag(&self, key: &str, enabled: bool, percentage: i32) {
        self.client
            .execute(
                "insert into feature_flags (flag_key, enabled, rollout_percentage) values ($1, $2, $3)",
                &[&key, &enabled, &percentage],
            )
            .await
            .expect("a flag");
    }

    /// Adds a typed flag to production.
    pub async fn add_typed_flag(&self, key: &str, definition: &serde_json::Value) {
        self.client
            .execute(
                "insert into feature_flags (flag_key, enabled, rollout_percentage, definition)
                 values ($1, true, 100, $2::text::json)",
                &[&key, &definition.to_string()],
            )
            .await
            .expect("a flag");
    }

    /// Adds this many flags `heavy-0`, … with this definition to production, and these evaluators, regardless of the
    /// API's limits.
    pub async fn add_heavy_flags(
        &self,
        flags: i32,
        definition: &serde_json::Value,
        evaluators: &serde_json::Map<String, serde_json::Value>,
    ) {
        let settings = serde_json::json!({ "evaluators": evaluators }).to_string();
        self.client
            .execute(
                "insert into pennon_environment_settings (environment, settings)
                 values ('production', $1::text::json)
                 on conflict (environment) do update set settings = excluded.settings",
                &[&settings],
            )
            .await
            .expect("settings");
        self.client
            .execute(
                "insert into feature_flags (flag_key, enabled, rollout_percentage, definition)
                 select 'heavy-' || number, true, 0, $1::text::json
                 from generate_series(0, $2 - 1) as number",
                &[&definition.to_string(), &flags],
            )
            .await
            .expect("flags");
    }

    /// Makes an API key valid for the environment that it names.
    pub async fn add_key(&self, key: &str) {
        let mut words = key.split('_').skip(1);
        let (kind, environment) = (words.next(), words.next());
        self.client
            .execute(
                "insert into pennon_api_keys (environment, kind, name, hash, created_by)
                 values ($1, $2, 'of a test', encode(sha256(convert_to($3, 'utf8')), 'hex'), 'test')",
                &[&environment, &kind, &key],
            )
            .await
            .expect("a key");
    }

    /// The revision of an environment.
    pub async fn revision(&self, environment: &str) -> i64 {
        self.client
            .query_one(
                "select revision from pennon_environments where environment = $1",
                &[&environment],
            )
            .await
            .expect("a revision")
            .get(0)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Dropping a database takes up to a second; no test waits for it.
        let _at_exit = CLEANER.send((self.port, std::mem::take(&mut self.name)));
    }
}

/// Sends the databases to drop to a thread.
static CLEANER: LazyLock<Sender<(u16, String)>> = LazyLock::new(|| {
    let (sender, databases) = channel::<(u16, String)>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        for (port, name) in databases {
            runtime.block_on(drop_database(port, &name));
        }
    });
    sender
});

/// Drops a database, even if a function that has not ended yet is connected to it.
#[expect(clippy::print_stderr, reason = "no test waits for the result")]
async fn drop_database(port: u16, name: &str) {
    let statement = format!("drop database {name} with (force)");
    let dropped = async {
        let admin = connect(&url(port, "postgres")).await?;
        admin.batch_execute(&statement).await
    };
    if let Err(error) = dropped.await {
        eprintln!("{statement}: {error}");
    }
}

/// Connects without TLS.
///
/// # Errors
/// The error of PostgreSQL.
pub async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

struct Shared {
    port: u16,
    /// The option that copies the files of a new database instead of logging all pages. Before version 15, PostgreSQL
    /// always copies the files.
    strategy: &'static str,
}

/// The shared server, started on first use. Its watchdog ends it with the test process.
async fn shared() -> &'static Shared {
    static SHARED: OnceCell<Shared> = OnceCell::const_new();
    SHARED
        .get_or_init(|| async {
            let server = Server::start(&[], |_| {}).await;
            let port = server.port;
            let admin = connect(&server.url("postgres")).await.expect("connects");
            admin
                .batch_execute(&format!("create database {TEMPLATE} template template0"))
                .await
                .expect("a database");
            migrate(&server.url(TEMPLATE)).await;
            // Dropping it would end it.
            std::mem::forget(server);
            let version = admin
                .query_one("select current_setting('server_version_num')::int", &[])
                .await
                .expect("a version");
            let strategy = match version.get::<_, i32>(0) {
                150_000.. => " strategy file_copy",
                _ => "",
            };
            Shared { port, strategy }
        })
        .await
}

/// Migrates a database with the production code, with the evaluation defaults of an existing installation, which
/// most tests use. The function `migrate` would choose those of a new installation.
pub async fn migrate(url: &str) {
    let found = |name: &str| (name == "DATABASE_URL").then(|| url.to_owned());
    let (config, _) = Config::from_lookup(found);
    open_store(&config.database, &Arc::default(), &Arc::default())
        .await
        .migrate(Some(EvaluationDefaults::Existing), false)
        .await
        .expect("migrates");
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://pennon@127.0.0.1:{port}/{database}?sslmode=disable")
}

/// A program of PostgreSQL, such as `pg_dump`.
pub fn program(name: &str) -> PathBuf {
    let mut folders = vec![
        "/opt/homebrew/bin".to_owned(),
        "/usr/local/bin".to_owned(),
        "/usr/local/pgsql/bin".to_owned(),
    ];
    for parent in ["/usr/lib/postgresql", "/opt/homebrew/opt"] {
        let Ok(entries) = std::fs::read_dir(parent) else {
            continue;
        };
        folders.extend(
            entries
                .flatten()
                .map(|entry| entry.path().join("bin").display().to_string()),
        );
    }
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    find_program(name, &folders, ADVICE)
}

/// The user that runs PostgreSQL if the tests run as root, which PostgreSQL refuses: the user that its package created,
/// or `nobody`. If the tests do not run as root, `None`: PostgreSQL runs as the same user.
fn owner() -> Option<u32> {
    let own = std::fs::metadata("/proc/self").ok()?.uid();
    if own != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    ["postgres:", "nobody:"].iter().find_map(|name| {
        let line = users.lines().find(|line| line.starts_with(name))?;
        line.split(':').nth(2)?.parse().ok()
    })
}

/// Makes the user that runs PostgreSQL the owner of a file or folder.
pub fn hand_over(path: &Path) {
    if let Some(owner) = owner() {
        chown(path, Some(owner), None).expect("root may change the owner");
    }
}

/// A command that runs as the user that runs PostgreSQL.
pub fn run_as_owner(program: &Path) -> Command {
    let Some(owner) = owner() else {
        return Command::new(program);
    };
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &owner.to_string(), "--clear-groups", "--"])
        .arg(program);
    command
}
