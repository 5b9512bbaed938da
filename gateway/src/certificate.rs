//! The certificate that is shown to clients: taken from its files, and taken anew when they change. Whoever is connected stays so.

mod files;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::Ticketer;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use self::files::{Digests, Loaded};
pub use self::files::{Files, Mistakes};
use crate::metrics::Metrics;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What is shown to clients, in the hands of whoever keeps it new.
pub struct Certificate {
    files: Files,
    /// What was in the files when they were last tried.
    tried: Digests,
    shown: Arc<Shown>,
    metrics: Arc<Metrics>,
}

/// The one certificate for every name that a client asks for.
#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Certificate {
    /// Takes the certificate that is in the files.
    ///
    /// # Errors
    /// A sentence that names the file and the mistake.
    pub fn load(files: Files, metrics: Arc<Metrics>) -> Result<Self, String> {
        let tried = files.digests();
        let loaded = files.load().map_err(|mistakes| files.name(mistakes))?;
        say(&files, loaded.ends);
        metrics.certificate_taken(loaded.ends);
        Ok(Self {
            files,
            tried,
            shown: Arc::new(Shown(ArcSwap::new(loaded.certified))),
            metrics,
        })
    }

    /// Shakes hands with this certificate, and with each that comes after it; TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// When the machine has no random numbers.
    pub fn acceptor(&self, protocols: &[&[u8]]) -> Result<TlsAcceptor, String> {
        let wrong = |error| format!("no TLS: {error}");
        let mut config = ServerConfig::builder_with_provider(files::provider().into())
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .with_no_client_auth()
            .with_cert_resolver(self.shown.clone());
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        // Clients that come again keep the state of their session themselves, whichever worker they meet.
        config.ticketer = Ticketer::new().map_err(wrong)?;
        Ok(Arc::new(config).into())
    }

    /// Takes what comes into the files, for ever. What cannot be used is said once, and the last good one stays.
    pub async fn follow(mut self) {
        let mut last = self.tried;
        loop {
            tokio::time::sleep(LOOK).await;
            let files = self.files.clone();
            // Off this thread: a file system may hang.
            let Ok(seen) = tokio::task::spawn_blocking(move || files.digests()).await else {
                return;
            };
            // Two files are not written in one moment: they have to have been the same for a while.
            let has_settled = seen == last;
            last = seen;
            if has_settled && seen != self.tried {
                self.tried = seen;
                let files = self.files.clone();
                let Ok(loaded) = tokio::task::spawn_blocking(move || files.load()).await else {
                    return;
                };
                self.take(loaded);
            }
        }
    }

    fn take(&self, loaded: Result<Loaded, Mistakes>) {
        match loaded {
            Ok(loaded) => {
                self.shown.0.store(loaded.certified);
                self.metrics.certificate_taken(loaded.ends);
                say(&self.files, loaded.ends);
            }
            Err(mistakes) => {
                self.metrics.certificate_refused();
                tracing::warn!(
                    "the certificate has changed and cannot be used, so the last one stays: {}",
                    self.files.name(mistakes)
                );
            }
        }
    }
}

fn say(files: &Files, ends: Option<SystemTime>) {
    let Some(ends) = ends else {
        return tracing::info!("certificate of {files}");
    };
    let date = humantime::format_rfc3339_seconds(ends);
    if ends <= SystemTime::now() {
        tracing::warn!("the certificate of {files} has ended at {date}: clients will not trust it");
    } else {
        tracing::info!("certificate of {files}, good until {date}");
    }
}
