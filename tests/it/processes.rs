//! The servers and folders of the tests themselves.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use pennon_tests::eventually;
use pennon_tests::process::{Process, new_folder};

/// Makes the test below the process that is killed: the folder that its watchdog has to remove.
const FOLDER: &str = "PENNON_TEST_KILLED_IN";

/// The process group of a process.
fn group_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // The name of the program, in parentheses, may hold spaces. The group is field 5.
    let (_, fields) = stat.rsplit_once(')').expect("the name of the program");
    let group = fields.split_whitespace().nth(2);
    group.and_then(|id| id.parse().ok()).expect("a number")
}

/// Otherwise Ctrl-C would end it together with the tests, before it has removed their folders.
#[test]
fn the_process_that_removes_folders_is_outside_the_group_that_ctrl_c_ends() {
    let mut command = Command::new("sleep");
    command.arg("3600");
    let process = Process::start(&command, &new_folder("groups").join("log"), None);
    // The watchdog leads the group of its program.
    assert_ne!(group_of(process.pid()), group_of(std::process::id()));
}

/// Linux sends SIGHUP to a process group that loses its last parent in the session, if one of its processes is stopped.
#[tokio::test]
async fn a_frozen_server_and_its_folder_are_gone_after_the_tests_were_killed() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        freeze_a_server_and_wait(&PathBuf::from(folder));
    }
    let folder = new_folder("killed");
    let trash = folder.join("trash");
    std::fs::create_dir(&trash).expect("a folder");
    let name = "processes::a_frozen_server_and_its_folder_are_gone_after_the_tests_were_killed";
    // In a session of its own, which the process that adopts the watchdog is not in.
    let mut tests = Command::new("setsid")
        .arg(std::env::current_exe().expect("the tests"))
        .args(["--exact", name])
        .env(FOLDER, &trash)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the tests start");
    let mut pid = String::new();
    eventually("a server is frozen", async || {
        pid = std::fs::read_to_string(trash.join("frozen")).unwrap_or_default();
        !pid.is_empty()
    })
    .await;
    tests.kill().expect("SIGKILL");
    tests.wait().expect("they end");
    eventually("the folder is removed", async || !trash.exists()).await;
    let server = PathBuf::from(format!("/proc/{pid}"));
    eventually("the server is gone", async || !server.exists()).await;
}

fn freeze_a_server_and_wait(trash: &Path) -> ! {
    let mut command = Command::new("sleep");
    command.arg("3600");
    let server = Process::start(&command, &trash.join("log"), Some(trash));
    server.freeze();
    std::fs::write(trash.join("frozen"), server.pid().to_string()).expect("written");
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}
