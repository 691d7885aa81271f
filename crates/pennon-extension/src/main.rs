//! Evaluates flags beside the application, without a request to the service for each evaluation.
//!
//! The same program is an external extension of AWS Lambda and, with `--listen`, a sidecar of a container. It fetches
//! the flags of an environment, evaluates them with the service's own code, and serves OFREP on 127.0.0.1.

mod evaluator;
mod lambda;
mod server;
mod service;
mod settings;
mod stored;

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use pennon_core::config::{process_arguments, process_environment};
use pennon_core::https::Https;
use pennon_core::telemetry::{LogStyle, start_logging};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::evaluator::Evaluator;
use crate::lambda::{Event, Extension};
use crate::settings::Settings;

/// How often a sidecar decides whether to check the flags, and whether to send counts.
const TICK: Duration = Duration::from_secs(1);

const HELP: &str = concat!(
    "pennon-extension ",
    env!("CARGO_PKG_VERSION"),
    "\nEvaluates feature flags beside the application: OFREP on 127.0.0.1:8016.

Usage: pennon-extension                      as an extension of AWS Lambda
       pennon-extension --listen [ADDRESS]   as a sidecar; ADDRESS is 127.0.0.1:8016 by default

Settings are environment variables:

  PENNON_URL               the base URL of the service
  PENNON_SYNC_KEY          an API key of kind sync
  PENNON_MAX_AGE_SECONDS   how old flags may be before they are checked again (10)
  PENNON_WAIT_MS           how long the start and an evaluation wait for the service (300)
  PENNON_COUNT_SECONDS     how often counts of evaluations are sent (60)
  PENNON_PORT              the port on 127.0.0.1 (8016)
"
);

/// How the program runs.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    /// As an extension of Lambda.
    Lambda,
    /// As a server at this address, or at the default one.
    Listen(Option<String>),
    /// Print how to use it.
    Help,
}

fn parse(arguments: &[String]) -> Result<Command, String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => Ok(Command::Lambda),
        ["--help" | "-h"] | ["--listen", "--help" | "-h"] => Ok(Command::Help),
        ["--listen"] => Ok(Command::Listen(None)),
        ["--listen", address] if !address.starts_with('-') => {
            Ok(Command::Listen(Some((*address).to_owned())))
        }
        ["--listen", unknown] | [unknown, ..] => {
            Err(format!("unknown argument '{unknown}'; --help lists all"))
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = process_arguments();
    let arguments: Vec<String> = arguments
        .iter()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let outcome = match parse(&arguments) {
        Ok(Command::Lambda) => {
            start_logging(LogStyle::Json);
            run_on_lambda().await
        }
        Ok(Command::Listen(address)) => {
            start_logging(LogStyle::Human);
            listen(address).await
        }
        Ok(Command::Help) => {
            let _ignored = std::io::stdout().write_all(HELP.as_bytes());
            Ok(())
        }
        Err(why) => {
            let _ignored = writeln!(std::io::stderr(), "{why}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!(domain = "config", "{why}");
            ExitCode::FAILURE
        }
    }
}

/// Runs as an extension until Lambda ends the instance.
///
/// A wrong setting fails the initialisation, and with it the first invocation after a deployment. The initialisation
/// succeeds even if the service does not answer.
async fn run_on_lambda() -> Result<(), String> {
    let address = process_environment("AWS_LAMBDA_RUNTIME_API")
        .ok_or("AWS_LAMBDA_RUNTIME_API is not set; outside of Lambda, use --listen")?;
    // One client for the service and the Extensions API, because reading the certificate authorities is slow.
    let client = Arc::new(Https::trusting(None)?);
    let settings = Settings::from_process();
    let started = match settings {
        Ok(settings) => start(&settings, None, client.clone())
            .await
            .map(|started| (started, settings)),
        Err(why) => Err(why),
    };
    let (evaluator, settings) = match started {
        Ok(started) => started,
        Err(why) => {
            let extension = Extension::register(&address, client).await?;
            extension
                .report("init", "Extension.InvalidConfiguration", &why)
                .await;
            return Err(why);
        }
    };
    // Both at once: Lambda starts the runtime when the extension has registered.
    let (extension, _is_current) = tokio::join!(
        Extension::register(&address, client),
        evaluator.check_within(settings.wait)
    );
    let extension = extension?;
    loop {
        match extension.next().await {
            Ok(Event::Invoke) => {
                evaluator.settle().await;
                evaluator.post_due().await;
            }
            Ok(Event::Shutdown) => {
                evaluator.flush().await;
                return Ok(());
            }
            Err(why) => {
                extension.report("exit", "Extension.NoEvent", &why).await;
                return Err(why);
            }
        }
    }
}

/// Runs as a sidecar until a signal. A timer checks the flags, so that evaluations do not wait.
async fn listen(address: Option<String>) -> Result<(), String> {
    let settings = Settings::from_process()?;
    let client = Arc::new(Https::trusting(None)?);
    let evaluator = start(&settings, address, client).await?;
    let interval = (settings.max_age / 2).max(TICK);
    let checking = async {
        loop {
            evaluator.check_due(interval).await;
            tokio::time::sleep(TICK).await;
        }
    };
    let posting = async {
        loop {
            evaluator.post_due().await;
            tokio::time::sleep(TICK).await;
        }
    };
    let mut terminated = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    tokio::select! {
        () = checking => {}
        () = posting => {}
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    evaluator.flush().await;
    Ok(())
}

/// Begins to serve, in the background.
async fn start(
    settings: &Settings,
    address: Option<String>,
    client: Arc<Https>,
) -> Result<Arc<Evaluator>, String> {
    let evaluator = Arc::new(Evaluator::new(settings, client));
    let address = address.unwrap_or_else(|| format!("{}:{}", Ipv4Addr::LOCALHOST, settings.port));
    let listener = TcpListener::bind(&address).await.map_err(|error| {
        format!(
            "cannot listen on {address}: {error}; PENNON_PORT or --listen chooses another address"
        )
    })?;
    tokio::spawn(server::serve(listener, evaluator.clone()));
    Ok(evaluator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_arguments_are_accepted() {
        let parse = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|one| (*one).to_owned()).collect();
            parse(&arguments)
        };
        assert_eq!(parse(&[]), Ok(Command::Lambda));
        assert_eq!(parse(&["--listen"]), Ok(Command::Listen(None)));
        let address = Some("0.0.0.0:80".to_owned());
        assert_eq!(
            parse(&["--listen", "0.0.0.0:80"]),
            Ok(Command::Listen(address))
        );
        assert_eq!(parse(&["--listen", "--help"]), Ok(Command::Help));
        for wrong in [
            &["listen"][..],
            &["--listen", "a", "b"],
            &["--listen", "--port"],
            &["--help", "x"],
        ] {
            parse(wrong).expect_err("rejected");
        }
    }
}
