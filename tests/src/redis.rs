//! A redis-server process per test, and a plain client to look into it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::process::{Process, find_program, free_port, new_folder};

/// The key of the environment that tests use.
pub const KEY: &str = "feature_flags:production";

/// A Redis of one's own.
pub struct Redis {
    process: Option<Process>,
    port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
}

/// What Redis answers.
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
    /// Starts a server that keeps nothing on disk.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more settings, as on its command line.
    pub fn start_with(arguments: &[&str]) -> Self {
        let mut redis = Self {
            process: None,
            port: free_port(),
            folder: new_folder("redis"),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
        };
        redis.restart();
        redis
    }

    /// Starts it (again) on the same port, and waits until it answers.
    pub fn restart(&mut self) {
        let program = find_program(
            "redis-server",
            &["/usr/local/bin", "/opt/homebrew/bin", "/usr/sbin"],
            "Install it with `apt-get install redis-server` or `brew install redis`, \
             or run `scripts/test`, which does.",
        );
        let mut command = Command::new(program);
        command
            .args(["--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(&self.folder)
            .args(&self.arguments);
        let log = self.folder.join("redis.log");
        let process = Process::start(&command, &log, None);
        let deadline = Instant::now() + PATIENCE;
        while self.try_command(&["PING"]).is_none() {
            assert!(
                Instant::now() < deadline,
                "redis-server does not answer: {}",
                process.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        self.process = Some(process);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The process, to freeze and thaw.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs a command.
    ///
    /// # Panics
    /// When Redis is not there.
    pub fn command(&self, words: &[&str]) -> Resp {
        self.try_command(words)
            .unwrap_or_else(|| panic!("Redis does not answer {words:?}"))
    }

    /// The fields of the production environment's hash, in no order.
    pub fn fields(&self) -> Vec<(String, String)> {
        let Resp::List(flat) = self.command(&["HGETALL", KEY]) else {
            return Vec::new();
        };
        let texts: Vec<String> = flat
            .into_iter()
            .map(|item| match item {
                Resp::Text(text) => text,
                other => panic!("{other:?} in a hash"),
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

    /// How often a command has run.
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

    /// How many connections others have to it, counted while they go on.
    pub async fn count_clients(&self) -> usize {
        let port = self.port;
        let listed = tokio::task::spawn_blocking(move || ask(port, &["CLIENT", "LIST"]))
            .await
            .expect("no panic");
        match listed {
            Some(Resp::Text(list)) => list.lines().count() - 1,
            other => panic!("CLIENT LIST answers with text, not {other:?}"),
        }
    }

    fn try_command(&self, words: &[&str]) -> Option<Resp> {
        ask(self.port, words)
    }
}

fn ask(port: u16, words: &[&str]) -> Option<Resp> {
    let address = format!("127.0.0.1:{port}");
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        let length = word.len();
        request.push('$');
        request.push_str(&length.to_string());
        request.push_str("\r\n");
        request.push_str(word);
        request.push_str("\r\n");
    }
    (&stream).write_all(request.as_bytes()).ok()?;
    match read(&mut BufReader::new(&stream))? {
        Resp::Error(text) if text.starts_with("LOADING") => None,
        answer => Some(answer),
    }
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
