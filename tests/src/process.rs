//! Servers as child processes that end with the tests.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Runs `"$@"` and prints its pid. When its standard input closes (the test process has ended, or has dropped the
/// `Process`), it kills the program and removes its files.
///
/// If the tests end while the program is frozen, Linux sends SIGHUP to the group, which must not end the watchdog. It is
/// not ignored, because the program would inherit that.
const WATCHDOG: &str = r#"
trap : HUP
exec 3<&0
"$@" </dev/null >"$PENNON_TEST_LOG" 2>&1 3<&- &
pid=$!
echo "$pid"
cat <&3 >/dev/null
kill -9 "$pid" 2>/dev/null
wait "$pid" 2>/dev/null
[ -z "$PENNON_TEST_TRASH" ] || rm -rf "$PENNON_TEST_TRASH"
"#;

/// A running server.
pub struct Process {
    watchdog: Child,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts a program. The folder `trash` is removed when the `Process` is killed or dropped, or when the tests end.
    pub fn start(command: &Command, log: &Path, trash: Option<&Path>) -> Self {
        let mut watchdog = Command::new("sh");
        watchdog
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(command.get_program())
            .args(command.get_args())
            .env("PENNON_TEST_LOG", log)
            .env("PENNON_TEST_TRASH", trash.unwrap_or(Path::new("")))
            // Ctrl-C ends all processes of the group in the foreground: the tests, but not the watchdog, which still
            // has to remove the folder.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => watchdog.env(name, value),
                None => watchdog.env_remove(name),
            };
        }
        let mut watchdog = watchdog.spawn().expect("sh starts");
        let stdout = watchdog.stdout.take().expect("piped");
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the watchdog prints the pid");
        Self {
            pid: line.trim().parse().expect("a pid"),
            watchdog,
            log: log.to_owned(),
        }
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// See [`processor_time_of`].
    pub fn processor_time(&self) -> Duration {
        processor_time_of(self.pid)
    }

    /// SIGSTOP: the process exists but does nothing, like a frozen instance or a hung server.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// SIGTERM: asks the process to end.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// A size in bytes from the status of the process, such as `VmRSS:`. Linux only.
    ///
    /// # Panics
    /// If the process has ended.
    pub fn memory(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid);
        let status = std::fs::read_to_string(&path).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with(name));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
        let kilobytes: Option<u64> = kilobytes.and_then(|number| number.parse().ok());
        kilobytes.expect("a number") * 1024
    }

    /// SIGKILL, and waits until the process has ended.
    pub fn kill(&mut self) {
        drop(self.watchdog.stdin.take());
        self.watchdog.wait().expect("the watchdog ends");
    }

    /// The output of the process so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.pid.to_string()])
            .status()
            .expect("kill runs");
        assert!(sent.success(), "{signal} to {}", self.pid);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Creates a folder in the system's temporary folder. All of them are removed when the tests have ended.
pub fn new_folder(name: &str) -> PathBuf {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    let root = ROOT.get_or_init(|| {
        let root = std::env::temp_dir().join(format!("pennon-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("a folder");
        remove_at_exit(&root);
        root
    });
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let folder = root.join(format!("{name}-{number}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Starts a process that waits until ours has ended and then removes a folder.
fn remove_at_exit(folder: &Path) {
    let command = Command::new("cat");
    let log = std::env::temp_dir().join("pennon-watchdog.log");
    std::mem::forget(Process::start(&command, &log, Some(folder)));
}

/// The variable with the file to which an instrumented binary writes its coverage data, if we measure coverage. Callers
/// start programs without inherited variables, so they must set this one.
pub fn coverage() -> Option<(String, String)> {
    let name = "LLVM_PROFILE_FILE";
    std::env::var(name).ok().map(|file| (name.to_owned(), file))
}

/// Runs a command to its end and returns its output.
///
/// # Panics
/// If it does not start, or does not end in time; then it is killed.
pub fn output_within(command: &mut Command, within: Duration) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = child.id().to_string();
    let ending = std::thread::spawn(move || child.wait_with_output());
    let deadline = Instant::now() + within;
    while !ending.is_finished() {
        if Instant::now() > deadline {
            let _gone = Command::new("kill").args(["-KILL", &pid]).status();
            panic!("{command:?} has not ended within {within:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    ending.join().expect("no panic").expect("its output")
}

/// The processor time that a process has used, in user and kernel mode. Linux only; in steps of 10 ms.
///
/// # Panics
/// If the process has ended.
pub fn processor_time_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // The name of the program, in parentheses, may hold spaces. utime and stime are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').expect("the name of the program");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(|ticks| ticks.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// A free TCP port, different for each call in this process. It is below the range of ephemeral ports, because the
/// system could give one of those to an outgoing connection before the server has bound it. The cluster of
/// `local_cluster.rs`, whose ports are consecutive, uses ports from 20,000.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 8_000;
    // Concurrent test processes usually begin at different ports.
    let begin = std::process::id() % 1_000 * 997;
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + (begin + given) % COUNT).expect("a port");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Finds a program in these folders or in PATH; panics with `advice` if it does not exist.
pub fn find_program(name: &str, folders: &[&str], advice: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders
        .iter()
        .map(PathBuf::from)
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is needed and not installed. {advice}"))
}
