//! An OpenID Connect issuer for tests of the console in a browser.
//!
//! It prints one line of JSON: the variables of a local server that uses it. Then it reads commands from the standard
//! input, one JSON object per line, and confirms each with the line `ok`; it exits at the end of the input. Fields of a
//! command, all optional:
//!
//! | Field | Effect |
//! |---|---|
//! | `subject`, `groups` | who signs in from now on; the default is `admin-1` in the group `admins` |
//! | `tokenSeconds` | for how long new access tokens are accepted |
//! | `endSessions` | `true` revokes all refresh tokens |

use std::io::Write;

use pennon_tests::issuer::Issuer;
use pennon_tests::sign_in::SignIn;
use serde_json::{Map, Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let issuer = Issuer::for_console(&["admins"]).await;
    let variables = issuer
        .console_environment()
        .map(|(name, value)| (name.to_owned(), json!(value)));
    print(&Value::from(Map::from_iter(variables)).to_string())?;
    let read = || std::io::stdin().lines().next();
    while let Some(line) = tokio::task::spawn_blocking(read).await? {
        apply(&issuer, &serde_json::from_str(&line?)?)?;
        print("ok")?;
    }
    Ok(())
}

fn print(line: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

fn apply(issuer: &Issuer, command: &Map<String, Value>) -> Result<(), String> {
    for (name, value) in command {
        let invalid = || format!("{name} cannot be {value}");
        match (name.as_str(), value) {
            ("subject", Value::String(subject)) => {
                issuer.sign_in(|it| it.subject.clone_from(subject));
            }
            ("groups", Value::Array(groups)) => {
                let groups = groups.iter().map(|group| group.as_str().map(str::to_owned));
                let groups = groups.collect::<Option<_>>().ok_or_else(invalid)?;
                issuer.sign_in(|it| it.groups = Some(groups));
            }
            ("tokenSeconds", Value::Number(seconds)) => {
                let seconds = seconds.as_u64().ok_or_else(invalid)?;
                issuer.sign_in(|it| it.expires_in = seconds);
            }
            ("endSessions", Value::Bool(true)) => {
                issuer.sign_in(SignIn::end_sessions);
            }
            _ => return Err(invalid()),
        }
    }
    Ok(())
}
