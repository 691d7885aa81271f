//! `PgBouncer` in transaction mode, in front of a test's database.

use crate::TIME_LIMIT;
use crate::postgres::{Database, connect, hand_over, run_as_owner};
use crate::process::{Process, find_program, free_port, new_folder};

const ADVICE: &str = "Install it with `apt-get install pgbouncer` or `brew install pgbouncer`, or run \
                      `scripts/test`, which does.";

/// A running pooler. All its clients share one connection to the database, so session state that one client leaves
/// on it affects the others.
pub struct Pooler {
    process: Process,
    port: u16,
    folder: std::path::PathBuf,
}

impl Pooler {
    /// Starts a pooler that accepts every login, in front of the server of this database.
    pub async fn start(database: &Database) -> Self {
        Self::start_with(database, None).await
    }

    /// Starts a pooler that rejects all logins but this one, a user and a password.
    pub async fn start_with_login(database: &Database, login: (&str, &str)) -> Self {
        Self::start_with(database, Some(login)).await
    }

    async fn start_with(database: &Database, login: Option<(&str, &str)>) -> Self {
        let folder = new_folder("pgbouncer");
        let authentication = match login {
            None => "auth_type = any".to_owned(),
            Some((user, password)) => {
                let users = folder.join("users.txt");
                std::fs::write(&users, format!("\"{user}\" \"{password}\"\n")).expect("a list");
                hand_over(&users);
                let users = users.display();
                format!("auth_type = scram-sha-256\nauth_file = {users}")
            }
        };
        let port = free_port();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=pennon\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\n{authentication}\npool_mode = transaction\n\
             default_pool_size = 1\nmax_client_conn = 100\nquery_wait_timeout = 60\n",
            database.port()
        );
        let file = folder.join("pgbouncer.ini");
        std::fs::write(&file, settings).expect("a settings file");
        hand_over(&folder);
        let folders = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"];
        let program = find_program("pgbouncer", &folders, ADVICE);
        let mut command = run_as_owner(&program);
        command.arg(&file);
        let pooler = Self {
            process: Process::start(&command, &folder.join("log"), None),
            port,
            folder,
        };
        let mut url = database.url_by(port);
        if let Some((user, password)) = login {
            url = url.replace("//pennon@", &format!("//{user}:{password}@"));
        }
        let deadline = std::time::Instant::now() + TIME_LIMIT;
        while connect(&url).await.is_err() {
            assert!(
                std::time::Instant::now() < deadline,
                "pgbouncer does not answer: {}",
                pooler.process.log()
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        pooler
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.process.kill();
        let _already_gone = std::fs::remove_dir_all(&self.folder);
    }
}
