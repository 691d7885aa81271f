//! A function that does nothing: the baseline of the benchmarks `cold_start` and `instructions`.

use lambda_http::{Error, Request, run_concurrent, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run_concurrent(service_fn(|_request: Request| async {
        Ok::<_, Error>("hello")
    }))
    .await
}
