//! `POST /api/admin/flags/{flagKey}/explain`: evaluates a context and shows the steps that decided.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::eval::{Context, EvaluationError, ExplainedValue, explain};
use pennon_core::http::{self, Fields, Request, Response};
use pennon_core::key_kind::KeyKind;
use pennon_core::snapshot::Revision;
use serde_json::{Value, json};

/// Evaluates the same snapshot that applications get at this moment. The evaluation is not counted.
pub(crate) async fn handle(app: &App, request: &Request) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let context = parse(request.body())?;
    let reading = app.service.read(&environment, request.context()).await?;
    let snapshot = &reading.snapshot;
    let mut body = if let Some(flag) = snapshot.flags.get(&key) {
        let (settings, defaults) = (&snapshot.settings, snapshot.defaults);
        let now = http::unix_seconds();
        let found = explain((&key, flag), settings, defaults, &context, now);
        let server_only = !snapshot.shows(flag, KeyKind::Client);
        let mut path = vec![
            json!({ "step": "archived", "result": false }),
            json!({ "step": "serverOnly", "result": server_only }),
        ];
        path.extend(found.path.iter().map(|step| json!(step)));
        outcome(found.outcome, &path)
    } else {
        let record = app.service.store().find_flag(&environment, &key).await?;
        if record.is_none_or(|record| record.archived_at.is_none()) {
            return Err(Error::FlagNotFound(key.to_string()));
        }
        let path = [json!({ "step": "archived", "result": true })];
        outcome(Err(EvaluationError::FlagNotFound), &path)
    };
    body["key"] = json!(key);
    body["environment"] = json!(environment.as_str());
    let Revision(revision) = snapshot.revision;
    body["revision"] = json!(revision);
    Ok(http::json(StatusCode::OK, &body))
}

fn outcome(found: Result<ExplainedValue, EvaluationError>, path: &[Value]) -> Value {
    match found {
        Ok(ExplainedValue {
            value,
            variant,
            reason,
        }) => {
            let variant = Some(variant).filter(|name| !name.is_empty());
            json!({ "value": value, "variant": variant, "reason": reason, "error": null, "path": path })
        }
        Err(error) => {
            let code = match &error {
                EvaluationError::FlagNotFound => "FLAG_NOT_FOUND",
                EvaluationError::TargetingKeyMissing => "TARGETING_KEY_MISSING",
                EvaluationError::Parse(_) => "PARSE_ERROR",
                EvaluationError::General(_) => "GENERAL",
            };
            let error = json!({ "code": code, "message": error.to_string() });
            json!({ "value": null, "variant": null, "reason": "ERROR", "error": error, "path": path })
        }
    }
}

fn parse(body: &[u8]) -> Result<Context, Error> {
    let mut fields = Fields::parse(body)?;
    let context = fields.take("context", |value| {
        Context::parse(value.clone()).map_err(|error| error.to_string())
    });
    fields.require("context", context.as_ref());
    fields.reject_rest();
    fields.finish()?;
    Ok(context.unwrap_or_default())
}
