//! The client commands against a gateway behind HTTPS: whom they trust, and what they say where they do not.

use std::net::SocketAddr;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::support::client::get;
use crate::support::gateway::{Folder, Gateway, skep};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Somebody who makes certificates, and whose own is in a file.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: String,
    _folder: Folder,
}

impl Authority {
    fn named(name: &str) -> Self {
        let (folder, key) = (Folder::new(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).unwrap();
        let file = folder.write("ca.pem", &own.pem());
        Self {
            issuer: Issuer::new(params, key),
            file: file.to_str().unwrap().to_owned(),
            _folder: folder,
        }
    }

    /// A server with a certificate for this name, from now for so long, that passes on to a gateway.
    fn before(&self, gateway: SocketAddr, name: &str, ends: SystemTime) -> Https {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = (ends - 400 * DAY).into();
        params.not_after = ends.into();
        let own = params.signed_by(&key, &self.issuer).unwrap();
        Https::start(&own, &key, gateway)
    }
}

/// A TLS server in front of a gateway, as long as the tests run.
struct Https {
    port: u16,
}

impl Https {
    fn start(certificate: &Certificate, key: &KeyPair, gateway: SocketAddr) -> Self {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::spawn(move || runtime.block_on(serve(listener, acceptor, gateway)));
        Self { port }
    }

    fn at(&self, host: &str) -> String {
        format!("https://{host}:{}", self.port)
    }
}

async fn serve(listener: std::net::TcpListener, acceptor: TlsAcceptor, gateway: SocketAddr) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that does not trust us goes away.
            if let Ok(mut inside) = acceptor.accept(stream).await {
                let mut outside = TcpStream::connect(gateway).await.unwrap();
                let _ = copy_bidirectional(&mut inside, &mut outside).await;
            }
        });
    }
}

fn ask(args: &[&str], env: &[(&str, &str)]) -> Output {
    skep()
        .args(args)
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

fn told(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn in_a_year() -> SystemTime {
    SystemTime::now() + 365 * DAY
}

#[test]
fn a_gateway_behind_https_is_asked_as_any_other() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    assert_eq!(
        get(gateway.address, "/function/cat").status,
        200,
        "it is ready"
    );
    let authority = Authority::named("ours");
    let https = authority.before(gateway.address, "localhost", in_a_year());
    let (at, ca) = (https.at("localhost"), authority.file.as_str());
    // By flag, by variable, and as a machine that trusts this authority.
    let by_flag = ask(&["ls", "--gateway", &at, "--ca", ca], &[]);
    let by_variable = ask(&["ls"], &[("skep_gateway", &at), ("skep_ca", ca)]);
    let by_machine = ask(&["ls", "--gateway", &at], &[("SSL_CERT_FILE", ca)]);
    for output in [by_flag, by_variable, by_machine] {
        assert!(told(&output).contains("cat   1/1"), "{}", told(&output));
    }
    let invoke = [
        "invoke",
        "cat",
        "-d",
        "in private",
        "--gateway",
        &at,
        "--ca",
        ca,
    ];
    assert_eq!(told(&ask(&invoke, &[])), "in private");
    let described = ask(&["describe", "cat", "--gateway", &at, "--ca", ca], &[]);
    assert!(told(&described).contains(&format!("{at}/function/cat")));
}

#[test]
fn a_certificate_that_nobody_else_signed_vouches_for_itself() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let (folder, key) = (Folder::new(), KeyPair::generate().unwrap());
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let own = params.self_signed(&key).unwrap();
    let file = folder.write("own.pem", &own.pem());
    let https = Https::start(&own, &key, gateway.address);
    let args = [
        "ls",
        "--gateway",
        &https.at("localhost"),
        "--ca",
        file.to_str().unwrap(),
    ];
    assert!(told(&ask(&args, &[])).contains("cat   1/1"));
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_with_what_to_do() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let authority = Authority::named("ours");
    let (stranger, double) = (Authority::named("another"), Authority::named("ours"));
    let good = authority.before(gateway.address, "localhost", in_a_year());
    let other = authority.before(gateway.address, "faas.example", in_a_year());
    let ended = authority.before(gateway.address, "localhost", SystemTime::now() - 3 * DAY);
    let early = authority.before(gateway.address, "localhost", SystemTime::now() + 500 * DAY);
    let plain = format!("https://{}", gateway.address);
    let reversed = good.at("localhost").replace("https", "http");
    for (at, ca, says) in [
        (good.at("localhost"), &stranger.file, "--ca FILE"),
        (good.at("localhost"), &double.file, "--ca FILE"),
        (
            good.at("127.0.0.1"),
            &authority.file,
            "not for '127.0.0.1', but for",
        ),
        (other.at("localhost"), &authority.file, "faas.example"),
        (ended.at("localhost"), &authority.file, "ended 3 days ago"),
        (early.at("localhost"), &authority.file, "not valid yet"),
        (plain, &authority.file, "write http://"),
        (reversed, &authority.file, "write https://"),
    ] {
        let told = complaint(&ask(&["ls", "--gateway", &at, "--ca", ca], &[]));
        assert!(told.contains(says) && told.contains(&at), "{at}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    let folder = Folder::new();
    for (file, says) in [
        ("/nosuch.pem".to_owned(), "cannot be read"),
        (
            folder.write("empty.pem", "").display().to_string(),
            "holds no certificate",
        ),
    ] {
        let told = complaint(&ask(
            &["ls", "--gateway", "https://localhost", "--ca", &file],
            &[],
        ));
        assert!(told.contains(&file) && told.contains(says), "{told}");
    }
    // As in an image without any file but the program.
    let bare = ask(
        &["ls", "--gateway", "https://localhost"],
        &[("SSL_CERT_FILE", "/nosuch.pem")],
    );
    let told = complaint(&bare);
    assert!(
        told.contains("trusts no certificates") && told.contains("--ca FILE"),
        "{told}"
    );
}

#[test]
fn the_doctor_says_when_a_certificate_ends() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let authority = Authority::named("ours");
    for (days, mark) in [(90, "ok   certificate"), (5, "see  certificate")] {
        // Half a day more than whole ones: some time passes until it is looked at.
        let ends = SystemTime::now() + days * DAY + DAY / 2;
        let https = authority.before(gateway.address, "localhost", ends);
        let at = https.at("localhost");
        let findings = told(&ask(
            &["doctor", "--gateway", &at, "--ca", &authority.file],
            &[],
        ));
        assert!(
            findings.contains(mark) && findings.contains(&format!("valid for {days} more days")),
            "{findings}"
        );
    }
}

#[test]
fn a_self_signed_certificate_of_a_ca_is_trusted_where_it_is_given() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    // As `openssl req -x509` makes it: its own issuer, and allowed to be one.
    let self_signed = |name: &str, ends: SystemTime| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = (ends - 400 * DAY).into();
        params.not_after = ends.into();
        let own = params.self_signed(&key).unwrap();
        let server = Https::start(&own, &key, gateway.address);
        (server, own.pem())
    };
    let (server, pem) = self_signed("localhost", in_a_year());
    let file = gateway.folder.write("own.pem", &pem);
    let file = file.to_str().unwrap();
    let url = server.at("localhost");
    assert!(told(&ask(&["ls", "--gateway", &url, "--ca", file], &[])).contains("cat"));
    let without = complaint(&ask(&["ls", "--gateway", &url], &[("SSL_CERT_FILE", file)]));
    assert!(without.contains("--ca FILE"), "{without}");
    let misnamed = ask(
        &["ls", "--gateway", &server.at("127.0.0.1"), "--ca", file],
        &[],
    );
    assert!(complaint(&misnamed).contains("is not for '127.0.0.1'"));

    let (other, _) = self_signed("localhost", in_a_year());
    let stranger = ask(
        &["ls", "--gateway", &other.at("localhost"), "--ca", file],
        &[],
    );
    assert!(complaint(&stranger).contains("--ca FILE"));
    let (ended, pem) = self_signed("localhost", SystemTime::now() - DAY);
    let file = gateway.folder.write("ended.pem", &pem);
    let ended = ask(
        &[
            "ls",
            "--gateway",
            &ended.at("localhost"),
            "--ca",
            file.to_str().unwrap(),
        ],
        &[],
    );
    assert!(complaint(&ended).contains("ended"));
}
