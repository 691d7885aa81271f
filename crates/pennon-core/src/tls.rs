//! TLS configuration of all connections. Certificates are always verified.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// The certificate authorities to trust.
pub(crate) enum Authorities<'a> {
    /// Mozilla's list, which is compiled in because reading the system's certificates takes milliseconds.
    Public,
    /// The certificates in a PEM text.
    Pem(&'a [u8]),
    /// The certificates in the PEM file at this path.
    File(&'a str),
}

/// A client configuration that verifies the server's certificate and name.
///
/// # Errors
/// A message for the log if a PEM file cannot be read or contains no certificate.
pub(crate) fn client_config(authorities: &Authorities<'_>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Authorities::Public => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Authorities::Pem(text) => add(&mut roots, text, "the built-in bundle")?,
        Authorities::File(path) => {
            let text =
                std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
            add(&mut roots, &text, path)?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn add(roots: &mut RootCertStore, pem: &[u8], origin: &str) -> Result<(), String> {
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{origin} is not a PEM file: {error:?}"))?;
    let (added, _ignored) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(format!("{origin} contains no certificate authority"));
    }
    Ok(())
}
