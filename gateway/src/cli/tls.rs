//! HTTPS towards a gateway: which certificates are trusted, and a sentence for each way in which one is not.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;

/// How far ahead the end of a certificate is looked for.
const FAR_AHEAD: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The trusted certificates, and the TLS settings that use them.
pub(super) struct Tls {
    verifier: Arc<Verifier>,
    config: Arc<ClientConfig>,
}

impl Tls {
    /// Trusts the certificates of this file alone, or else those that this machine trusts.
    ///
    /// # Errors
    /// A sentence: there is none that can be used.
    pub(super) fn trusting(file: Option<&Path>) -> Result<Self, String> {
        let (roots, pinned) = match file {
            Some(file) => of_file(file)?,
            None => (of_this_machine()?, Vec::new()),
        };
        let provider = Arc::new(ring::default_provider());
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| format!("no certificate to trust: {error}"))?;
        let verifier = Arc::new(Verifier { chains, pinned });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
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
        // The verifier's error at a time after the end names the end.
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

/// Trusts what a CA vouches for, and the very certificates of a `--ca` file.
///
/// A self-signed certificate is often one of a CA as well (`openssl req -x509` makes such), which webpki refuses to a server.
#[derive(Debug)]
struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let by_chain = self
            .chains
            .verify_server_cert(own, intermediates, name, ocsp, now);
        match by_chain {
            Err(Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::Other(_),
            )) if self.pinned.iter().any(|pinned| pinned == own) => {
                check_validity(own, now)?;
                verify_server_name(&ParsedCertificate::try_from(own)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// The part of webpki's check that a pinned certificate still has to pass.
fn check_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let parsed = CertificateInner::<Raw>::from_der(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let validity = parsed.tbs_certificate().validity();
    let from = UnixTime::since_unix_epoch(validity.not_before.to_unix_duration());
    let until = UnixTime::since_unix_epoch(validity.not_after.to_unix_duration());
    if now.as_secs() < from.as_secs() {
        return Err(Error::InvalidCertificate(
            CertificateError::NotValidYetContext {
                time: now,
                not_before: from,
            },
        ));
    }
    if now.as_secs() > until.as_secs() {
        return Err(Error::InvalidCertificate(
            CertificateError::ExpiredContext {
                time: now,
                not_after: until,
            },
        ));
    }
    Ok(())
}

fn name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| format!("'{host}' is not a name that a certificate can have"))
}

/// The certificates of a file, as roots and as they are.
fn of_file(file: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), String> {
    let wrong = |why: String| format!("--ca {}: {why}", file.display());
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(format!("cannot be read as PEM: {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots
            .add(certificate.clone())
            .map_err(|error| wrong(format!("holds a certificate that cannot be used: {error}")))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate".to_owned()));
    }
    Ok((roots, certificates))
}

fn of_this_machine() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Certificates that cannot be parsed are left out.
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
        // `Other` is webpki's answer to a self-signed certificate that may sign others.
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature | Bad::Other(_)) => {
            "its certificate is signed by an unknown CA: name the CA's certificate, or the self-signed one, with --ca FILE".to_owned()
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
        Error::InvalidMessage(_) => "the server does not speak TLS: write http://".to_owned(),
        other => format!("TLS: {other}"),
    }
}
