//! Migrates the database, decides once how the installation evaluates partial rollouts, and manages the database
//! roles of functions. Invoked by `scripts/deploy`, by `pre-traffic` or by hand; it has no route.

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::eval::EvaluationDefaults;
use pennon_core::store::RolesState;
use serde_json::{Value, json};

const DEFAULTS: &str = "evaluationDefaults";
const ROTATE: &str = "rotateDatabaseRoles";

/// A parsed event.
#[derive(Debug, Default, Clone, Copy)]
struct Options {
    defaults: Option<EvaluationDefaults>,
    rotate: bool,
}

/// Runs pending migrations and returns their number and the evaluation defaults of the installation.
/// `{"evaluationDefaults": "existing" | "new"}` sets the defaults explicitly, and replaces stored defaults that have
/// become unreadable. If secrets of roles are configured, `databaseRoles` in the result is `ready`, or `waiting` for an
/// administrator to run `sql`; `{"rotateDatabaseRoles": true}` gives all roles new passwords.
///
/// # Errors
/// If the event is invalid, names other defaults than the stored ones although flags exist, the database is
/// unreachable, or a step fails. Steps before a failed one stay applied.
pub async fn handle(app: Arc<App>, event: Value) -> Result<Value, Error> {
    let options = parse(&event).map_err(|why| Error::InvalidState(why.to_owned()))?;
    let store = app.service.store();
    let migrated = store.migrate(options.defaults, options.rotate).await?;
    let (applied, defaults) = (migrated.applied, migrated.defaults.name());
    tracing::info!(
        domain = "config",
        applied,
        evaluation_defaults = defaults,
        "database migrated"
    );
    if migrated.defaults == EvaluationDefaults::Unreadable {
        tracing::error!(
            domain = "config",
            error.r#type = "unreadable_row",
            "the row of pennon_installation is unreadable, and partial rollouts that depend on it fail; \
             invoke migrate with {{\"evaluationDefaults\": \"existing\"}} or \"new\", as it was before"
        );
    }
    let mut result = json!({ "applied": applied, DEFAULTS: defaults });
    match migrated.roles {
        RolesState::OneLogin => {}
        RolesState::Ready { written } => {
            tracing::info!(
                domain = "config",
                written,
                "secrets of database roles written"
            );
            result["databaseRoles"] = json!("ready");
            result["secretsWritten"] = json!(written);
        }
        RolesState::ByHand { sql } => {
            // Not logged: the statements contain password verifiers.
            tracing::warn!(
                domain = "config",
                "this login may not create roles; an administrator must run the statements in the \
                 response, and functions share one login until then"
            );
            result["databaseRoles"] = json!("waiting");
            result["sql"] = json!(sql);
        }
    }
    Ok(result)
}

/// Parses an event. Unknown fields are rejected: if a misspelled field were ignored, `migrate` would choose the
/// defaults itself, and they cannot be changed later.
fn parse(event: &Value) -> Result<Options, &'static str> {
    let fields = match event {
        Value::Null => return Ok(Options::default()),
        Value::Object(fields) => fields,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err("the event must be a JSON object");
        }
    };
    let mut options = Options::default();
    for (name, value) in fields {
        match (name.as_str(), value) {
            (DEFAULTS, value) => {
                let named = value.as_str().and_then(EvaluationDefaults::named);
                options.defaults =
                    Some(named.ok_or("evaluationDefaults must be \"existing\" or \"new\"")?);
            }
            (ROTATE, Value::Bool(rotate)) => options.rotate = *rotate,
            (ROTATE, _) => return Err("rotateDatabaseRoles must be true or false"),
            _ => {
                return Err(
                    "the event has a field that is neither evaluationDefaults nor rotateDatabaseRoles",
                );
            }
        }
    }
    Ok(options)
}
