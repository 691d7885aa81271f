//! The Lambda function `migrate`; what it does is in `lib.rs`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), pennon_core::lambda::RuntimeError> {
    pennon_core::lambda::serve_calls(migrate::handle).await
}
