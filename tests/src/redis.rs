//! A redis-server process per test, and a simple client to inspect it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::TIME_LIMIT;
use crate::certificates::Certificates;
use crate::process::{Process, find_program, free_port, new_folder};

/// The key of the entry of the environment `production`.
pub const KEY: &str = "feature_flags:production";

/// A Redis server for one test.
pub struct Redis {
    process: Option<Process>,
    port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    password: Option<String>,
    is_frozen: AtomicBool,
}

/// A reply of Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resp {
    /// A null.
    Nothing,
    /// An integer.
    Number(i64),
    /// A simple or a bulk string.
    Text(String),
    /// An error.
    Error(String),
    /// An array.
    List(Vec<Resp>),
}

impl Redis {
    /// Starts a server without persistence.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with additional settings, as on its command line.
    pub fn start_with(arguments: &[&str]) -> Self {
        let mut redis = Self::prepare(free_port(), arguments);
        redis.restart();
        redis
    }

    /// Starts a server with a password, and a second port that is encrypted with this certificate. Returns this port
    /// too.
    pub fn start_encrypted(certificates: &Certificates, password: &str) -> (Self, u16) {
        let port = free_port();
        let redis = Self::start_with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &certificates.file("server.pem"),
            "--tls-key-file",
            &certificates.file("server.key"),
            "--tls-ca-cert-file",
            &certificates.file("ca.pem"),
            "--tls-auth-clients",
            "no",
            "--requirepass",
            password,
        ]);
        (redis.with_password(password), port)
    }

    /// Creates a server that is not started yet, so that files can be put into its folder first.
    pub fn prepare(port: u16, arguments: &[&str]) -> Self {
        Self {
            process: None,
            port,
            folder: new_folder("redis"),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            password: None,
            is_frozen: AtomicBool::new(false),
        }
    }

    /// Inspects the server with this password.
    pub fn with_password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Starts it (again) on the same port, and waits until it responds.
    pub fn restart(&mut self) {
        // A second process could not use the port.
        self.kill();
        let mut command = Command::new(program());
        command
            .args(["--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(&self.folder)
            .args(&self.arguments);
        let log = self.folder.join("redis.log");
        let process = Process::start(&command, &log, None);
        let deadline = Instant::now() + TIME_LIMIT;
        while self.try_command(&["PING"]).is_none() {
            assert!(
                Instant::now() < deadline,
                "redis-server does not answer: {}",
                process.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        self.process = Some(process);
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The RDB file that `SAVE` writes and a start reads.
    pub fn snapshot(&self) -> PathBuf {
        self.folder.join("dump.rdb")
    }

    /// SIGSTOP: connections are accepted, but get no reply.
    pub fn freeze(&self) {
        self.is_frozen.store(true, Ordering::Relaxed);
        self.process().freeze();
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.process().thaw();
        self.is_frozen.store(false, Ordering::Relaxed);
    }

    /// Whether its process exists and is not frozen.
    pub fn runs(&self) -> bool {
        self.process.is_some() && !self.is_frozen.load(Ordering::Relaxed)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
        self.is_frozen.store(false, Ordering::Relaxed);
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Executes a command.
    ///
    /// # Panics
    /// If Redis does not respond, or is still loading its data.
    pub fn command(&self, words: &[&str]) -> Resp {
        self.try_command(words)
            .unwrap_or_else(|| panic!("Redis does not answer {words:?}, or is still loading"))
    }

    /// The fields of production's hash, in any order.
    pub fn fields(&self) -> Vec<(String, String)> {
        let Resp::List(flat) = self.command(&["HGETALL", KEY]) else {
            return Vec::new();
        };
        let texts: Vec<String> = flat
            .into_iter()
            .map(|item| {
                let Resp::Text(text) = item else {
                    panic!("{item:?} in a hash");
                };
                text
            })
            .collect();
        texts
            .chunks(2)
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect()
    }

    /// Whether production has an entry with a revision.
    pub fn has_entry(&self) -> bool {
        self.command(&["HEXISTS", KEY, "__rev"]) == Resp::Number(1)
    }

    /// How often a command has been executed.
    pub fn calls(&self, command: &str) -> u64 {
        let Resp::Text(text) = self.command(&["INFO", "commandstats"]) else {
            panic!("INFO answers with text");
        };
        let prefix = format!("cmdstat_{command}:calls=");
        text.lines()
            .find_map(|line| line.strip_prefix(&prefix))
            .and_then(|rest| rest.split(',').next())
            .map_or(0, |number| number.parse().expect("a number"))
    }

    /// The number of connections, without those that count them: that of an earlier count may not be closed yet.
    pub async fn count_clients(&self) -> usize {
        let (port, password) = (self.port, self.password.clone());
        let reply = tokio::task::spawn_blocking(move || {
            let mut connection = connect(port, password.as_deref())?;
            exchange(&mut connection, &["CLIENT", "LIST", "TYPE", "NORMAL"])
        })
        .await
        .expect("no panic");
        match reply {
            Some(Resp::Text(list)) => {
                let counts = |line: &&str| line.contains(" cmd=client|list ");
                list.lines().filter(|line| !counts(line)).count()
            }
            other => panic!("a list of clients, not {other:?}"),
        }
    }

    /// Executes commands on one connection, and returns the last reply.
    pub fn commands(&self, all: &[&[&str]]) -> Resp {
        let mut connection = connect(self.port, self.password.as_deref()).expect("it listens");
        let mut answer = Resp::Nothing;
        for words in all {
            answer = exchange(&mut connection, words).expect("it answers");
        }
        answer
    }

    /// Executes a command; `None` if Redis does not respond, or is still loading its data.
    pub fn try_command(&self, words: &[&str]) -> Option<Resp> {
        ask(self.port, self.password.as_deref(), words)
    }
}

/// The server under test: `PENNON_REDIS_SERVER`, such as a path to Valkey's, or `redis-server`.
fn program() -> PathBuf {
    if let Some(chosen) = std::env::var_os("PENNON_REDIS_SERVER") {
        return PathBuf::from(chosen);
    }
    find_program(
        "redis-server",
        &["/usr/local/bin", "/opt/homebrew/bin", "/usr/sbin"],
        "Install it with `apt-get install redis-server` or `brew install redis`, \
         or run `scripts/test`, which does.",
    )
}

fn ask(port: u16, password: Option<&str>, words: &[&str]) -> Option<Resp> {
    let response = exchange(&mut connect(port, password)?, words)?;
    let is_loading = matches!(&response, Resp::Error(text) if text.starts_with("LOADING"));
    (!is_loading).then_some(response)
}

fn connect(port: u16, password: Option<&str>) -> Option<BufReader<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut connection = BufReader::new(stream);
    if let Some(password) = password {
        exchange(&mut connection, &["AUTH", password])?;
    }
    Some(connection)
}

fn exchange(connection: &mut BufReader<TcpStream>, words: &[&str]) -> Option<Resp> {
    write(connection.get_ref(), words)?;
    read(connection)
}

fn write(mut stream: &TcpStream, words: &[&str]) -> Option<()> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        let length = word.len();
        request.push('$');
        request.push_str(&length.to_string());
        request.push_str("\r\n");
        request.push_str(word);
        request.push_str("\r\n");
    }
    stream.write_all(request.as_bytes()).ok()
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.process = None;
        let _already_gone = std::fs::remove_dir_all(&self.folder);
    }
}

/// One value of RESP2: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.
fn read(from: &mut impl BufRead) -> Option<Resp> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    let line = line.strip_suffix("\r\n")?;
    let (kind, rest) = line.split_at_checked(1)?;
    Some(match kind {
        "+" => Resp::Text(rest.to_owned()),
        "-" => Resp::Error(rest.to_owned()),
        ":" => Resp::Number(rest.parse().ok()?),
        "$" => match usize::try_from(rest.parse::<i64>().ok()?) {
            Err(_negative) => Resp::Nothing,
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                from.read_exact(&mut bytes).ok()?;
                bytes.truncate(length);
                Resp::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
        },
        "*" => match usize::try_from(rest.parse::<i64>().ok()?) {
            Err(_negative) => Resp::Nothing,
            Ok(length) => Resp::List((0..length).map(|_| read(from)).collect::<Option<_>>()?),
        },
        _ => return None,
    })
}
