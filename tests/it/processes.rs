//! The servers and folders of the tests themselves.

use std::process::Command;

use pennon_tests::process::{Process, new_folder};

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
