//! Ids that nobody else has.

/// 128 random bits as 32 hexadecimal digits.
pub(crate) fn unique_id() -> String {
    let mut bytes = [0_u8; 16];
    let provider = rustls::crypto::ring::default_provider();
    if provider.secure_random.fill(&mut bytes).is_err() {
        // It fails only where the system call is missing. Then TLS does not work either.
        tracing::error!("the operating system gives no random numbers");
    }
    format!("{:032x}", u128::from_be_bytes(bytes))
}
