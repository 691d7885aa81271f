//! The environment and arguments of this process. No other file reads them.

/// Reads a variable of the process environment. An empty value, as the template sets for unused variables, counts as
/// unset.
#[must_use]
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .filter(|value| !value.trim().is_empty())
}

/// The arguments of this process, without its name.
#[must_use]
pub fn process_arguments() -> Vec<std::ffi::OsString> {
    std::env::args_os().skip(1).collect()
}
