//! HTTPS towards a gateway: whom to trust, and what is wrong with a certificate, in words that say what to do.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore};

/// How far ahead the end of a certificate is looked for.
const FAR_AHEAD: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Who is trusted, and with what.
pub(super) struct Tls {
    verifier: Arc<WebPkiServerVerifier>,
    config: Arc<ClientConfig>,
}

impl Tls {
    /// Trusts the certificates of this file alone, or else those that this machine trusts.
    ///
    /// # Errors
    /// A sentence: there is none that can be used.
    pub(super) fn trusting(file: Option<&Path>) -> Result<Self, String> {
        let roots = match file {
            Some(file) => of_file(file)?,
            None => of_this_machine()?,
        };
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error| format!("no certificate to trust: {error}"))?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_webpki_verifier(verifier.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            verifier,
            config: Arc::new(config),
        })
    }

    /// Begins TLS with a host on a connection to it.
    ///
    /// # Errors
    /// A sentence: what is wrong, and what to do.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let connector = TlsConnector::from(self.config.clone());
        let connected = connector.connect(name(host)?, stream).await;
        connected.map_err(|error| {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
            match cause {
                Some(cause) => wrong(host, cause),
                None => error.to_string(),
            }
        })
    }

    /// When the certificate of a host that was connected to ends; nothing if that is out of sight.
    pub(super) fn end_of(&self, host: &str, stream: &TlsStream<TcpStream>) -> Option<SystemTime> {
        let (own, others) = stream.get_ref().1.peer_certificates()?.split_first()?;
        let then = SystemTime::now().duration_since(UNIX_EPOCH).ok()? + FAR_AHEAD;
        // Whoever judges certificates says when one ends, if only it is asked after that.
        let judged = self.verifier.verify_server_cert(
            own,
            others,
            &name(host).ok()?,
            &[],
            UnixTime::since_unix_epoch(then),
        );
        match judged {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => UNIX_EPOCH.checked_add(Duration::from_secs(not_after.as_secs())),
            _ => None,
        }
    }
}

fn name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| format!("'{host}' is no name that a certificate can have"))
}

fn of_file(file: &Path) -> Result<RootCertStore, String> {
    let wrong = |why: String| format!("--ca {}: {why}", file.display());
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(format!("cannot be read as PEM: {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|error| wrong(format!("holds a certificate that cannot be used: {error}")))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate".to_owned()));
    }
    Ok(roots)
}

fn of_this_machine() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // One that cannot be used is of no use to anybody; the others are.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(
            "this machine trusts no certificates (Debian has them in ca-certificates): name one with --ca FILE"
                .to_owned(),
        );
    }
    Ok(roots)
}

/// What is wrong, and what to do.
fn wrong(host: &str, error: &Error) -> String {
    use CertificateError as Bad;
    match error {
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "its certificate comes from nobody who is trusted here: name its CA's certificate with --ca FILE".to_owned()
        }
        Error::InvalidCertificate(Bad::ExpiredContext { time, not_after }) => format!(
            "its certificate ended {} days ago: renew it (or is this machine's clock wrong?)",
            (time.as_secs().saturating_sub(not_after.as_secs())) / 86_400
        ),
        Error::InvalidCertificate(Bad::NotValidYetContext { .. }) => {
            "its certificate is not valid yet: is this machine's clock wrong?".to_owned()
        }
        Error::InvalidCertificate(Bad::NotValidForNameContext { presented, .. }) => format!(
            "its certificate is not for '{host}', but for {}: ask for it by that name",
            presented.join(", ")
        ),
        Error::InvalidMessage(_) => "what listens there speaks no TLS: write http://".to_owned(),
        other => format!("TLS: {other}"),
    }
}
