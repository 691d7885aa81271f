//! Brings the database to the newest version, and decides once how the installation evaluates partial
//! rollouts. Invoked by the deploy command, or by hand; no route leads here.

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::eval::EvaluationDefaults;
use serde_json::{Value, json};

const FIELD: &str = "evaluationDefaults";

/// Runs the migrations that have not run and answers how many those were, and which evaluation defaults
/// the installation has. `{"evaluationDefaults": "existing" | "new"}` decides these explicitly, and
/// replaces a stored decision that has become unreadable.
///
/// # Errors
/// When the event has another form; when other defaults were decided and there are flags; when the
/// database cannot be reached; when a step fails: the steps before it stay.
pub async fn handle(app: Arc<App>, event: Value) -> Result<Value, Error> {
    let wanted = wanted(&event).map_err(|why| Error::InvalidState(why.to_owned()))?;
    let migrated = app.service.store().migrate(wanted).await?;
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
             invoke migrate with {{\"evaluationDefaults\": \"existing\"}} or \"new\", whichever the \
             installation had"
        );
    }
    Ok(json!({ "applied": applied, FIELD: defaults }))
}

/// What an event asks for. A misspelt field must not let `migrate` decide by itself: it decides once.
fn wanted(event: &Value) -> Result<Option<EvaluationDefaults>, &'static str> {
    let fields = match event {
        Value::Null => return Ok(None),
        Value::Object(fields) => fields,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err("the event must be a JSON object");
        }
    };
    if fields.keys().any(|name| name != FIELD) {
        return Err("the event has a field that is not evaluationDefaults");
    }
    let Some(named) = fields.get(FIELD) else {
        return Ok(None);
    };
    match named.as_str().and_then(EvaluationDefaults::named) {
        Some(defaults) => Ok(Some(defaults)),
        None => Err("evaluationDefaults must be \"existing\" or \"new\""),
    }
}
