//! The Lambda function `manage-flags`; what it does is in `lib.rs`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), pennon_core::lambda::RuntimeError> {
    pennon_core::lambda::serve(env!("CARGO_PKG_NAME"), manage_flags::handle).await
}
