//! Instances whose monotonic clock stands still while Lambda freezes them.

use std::process::Command;
use std::time::Duration;

use pennon_tests::TIME_LIMIT;
use pennon_tests::event::Event;
use pennon_tests::process::{new_folder, output_within};
use pennon_tests::stack::{Stack, percentage, set_percentage};

/// Replaces `clock_gettime`: the monotonic clock is behind by the seconds in a file.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    long result = syscall(SYS_clock_gettime, clock, time);
    FILE *file = clock == CLOCK_MONOTONIC ? fopen(getenv("STOPPED_SECONDS_FILE"), "r") : NULL;
    int stopped = 0;
    if (file != NULL) {
        if (fscanf(file, "%d", &stopped) == 1) time->tv_sec -= stopped;
        fclose(file);
    }
    return (int)result;
}
"#;

#[tokio::test]
async fn a_snapshot_gets_older_during_a_freeze_that_stops_the_monotonic_clock() {
    let folder = new_folder("clock");
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::write(path("clock.c"), CLOCK).expect("writes");
    let mut compiler = Command::new("cc");
    compiler.args([
        "-shared",
        "-fPIC",
        "-o",
        &path("clock.so"),
        &path("clock.c"),
    ]);
    let compiled = output_within(&mut compiler, TIME_LIMIT);
    assert!(compiled.status.success(), "{compiled:?}");

    let stack = Stack::start().await;
    let environment = [
        ("LD_PRELOAD", path("clock.so")),
        ("STOPPED_SECONDS_FILE", path("stopped")),
        ("SNAPSHOT_MAX_AGE_MS", "2000".to_owned()),
    ];
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let get = stack.function_with("get-flag", &environment).await;
    let update = stack.function("update-flag").await;
    let read = Event::get("checkout");
    assert_eq!(percentage(&get.call(&read).await), 50);
    // Only the replaced clock makes this snapshot old.
    set_percentage(&update, "checkout", 6).await;
    std::fs::write(path("stopped"), "-3").expect("writes");
    assert_eq!(percentage(&get.call(&read).await), 6);
    get.process().freeze();
    set_percentage(&update, "checkout", 7).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    std::fs::write(path("stopped"), "0").expect("writes");
    get.process().thaw();
    assert_eq!(percentage(&get.call(&read).await), 7);
}
