//! `GET /api/admin/flags/{flagKey}/schedule`: the schedules of a flag and their status.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response};
use pennon_core::store::ScheduleRecord;
use serde_json::Value;

use super::view;

/// Bytes of the brackets of the list.
const OVERHEAD: usize = 2;

pub(crate) async fn handle(app: &App, request: &Request) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let found = app
        .service
        .store()
        .list_schedules(&environment, &key)
        .await?;
    let Some(found) = found else {
        return Err(Error::FlagNotFound(key.to_string()));
    };
    let (body, omitted) = take_fitting(&found);
    let response = http::json(StatusCode::OK, &body);
    if omitted == 0 {
        return Ok(response);
    }
    Ok(http::with_header(
        response,
        "x-omitted-schedules",
        &omitted.to_string(),
    ))
}

/// The list, and how many schedules were omitted because they do not fit into a response. Finished schedules are
/// omitted first, the oldest first, then the pending ones that are due last.
fn take_fitting(found: &[ScheduleRecord]) -> (Vec<Value>, usize) {
    let (open, done): (Vec<usize>, Vec<usize>) =
        (0..found.len()).partition(|at| found[*at].is_open());
    let order: Vec<usize> = open.into_iter().chain(done.into_iter().rev()).collect();
    let shown = order.iter().map(|at| view::schedule(&found[*at])).collect();
    let (kept, omitted) = http::take_fitting(shown, OVERHEAD);
    let mut kept: Vec<(usize, Value)> = order.into_iter().zip(kept).collect();
    kept.sort_by_key(|(at, _)| *at);
    (kept.into_iter().map(|(_, one)| one).collect(), omitted)
}
