//! The Lambda function `pre-traffic`; what it does is in `lib.rs`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), pennon_core::lambda::RuntimeError> {
    pennon_core::lambda::serve_calls(pre_traffic::handle).await
}
