//! An authority of a test's own: certificates for this machine, and clients that trust them.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::gateway::Folder;

/// A connection by TLS that is read and written like any other.
pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Whoever signs.
pub struct Authority {
    own: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = named("an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        Self {
            own,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for this machine, which ends with this year's first day, and its key; both PEM.
    pub fn issue(&self, end: i32) -> (String, String) {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = named("a gateway");
        params.not_after = rcgen::date_time_ymd(end, 1, 1);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (leaf.pem() + &self.own.pem(), key.serialize_pem())
    }

    /// A certificate and its key in files of this folder.
    pub fn write(&self, folder: &Folder, end: i32) -> [PathBuf; 2] {
        let (cert, key) = self.issue(end);
        [
            folder.write("cert.pem", &cert),
            folder.write("key.pem", &key),
        ]
    }

    /// The authority's own certificate in a file of this folder, for clients.
    pub fn write_own(&self, folder: &Folder) -> PathBuf {
        folder.write("authority.pem", &self.own.pem())
    }

    /// What trusts nobody else, and speaks HTTP/1.1.
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::new(self.speaking(&[]))
    }

    /// What trusts nobody else, and offers these protocols.
    fn speaking(&self, protocols: &[&str]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.own.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| (*name).into()).collect();
        config
    }

    /// A connection on which hands were shaken.
    pub fn connect(&self, to: SocketAddr) -> Stream {
        finish(self.begin(to))
    }

    /// A connection on which hands were shaken, for HTTP/2.
    pub fn connect_h2(&self, to: SocketAddr) -> Stream {
        finish(begin(
            self.speaking(&["h2"]),
            TcpStream::connect(to).unwrap(),
        ))
    }

    /// A connection on which our hand is held out, and the other side's has come.
    pub fn begin(&self, to: SocketAddr) -> Stream {
        self.begin_on(TcpStream::connect(to).unwrap())
    }

    /// The same on a connection that exists.
    pub fn begin_on(&self, tcp: TcpStream) -> Stream {
        begin(self.client(), tcp)
    }

    /// The certificate that is shown there.
    pub fn shown(&self, at: SocketAddr) -> Vec<u8> {
        let stream = self.connect(at);
        stream.conn.peer_certificates().unwrap()[0].to_vec()
    }
}

fn begin(client: impl Into<Arc<ClientConfig>>, mut tcp: TcpStream) -> Stream {
    tcp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let to = tcp.peer_addr().unwrap().ip();
    let mut tls = ClientConnection::new(client.into(), to.into()).unwrap();
    tls.write_tls(&mut tcp).unwrap();
    tcp.peek(&mut [0]).unwrap();
    Stream::new(tls, tcp)
}

/// Shakes hands to the end.
pub fn finish(mut stream: Stream) -> Stream {
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    stream
}

/// Where the two have one name, a client takes the one for signed by itself.
fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
