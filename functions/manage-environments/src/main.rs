//! The Lambda function `manage-environments`; what it does is in `lib.rs`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), pennon_core::lambda::RuntimeError> {
    pennon_core::lambda::serve(env!("CARGO_PKG_NAME"), manage_environments::handle).await
}
