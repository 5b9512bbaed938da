//! Who may use the management API: whoever knows the one login, or everybody while there is none. Functions never ask for it.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The files of a login, below `secret_mount_path` (wire contract §3.1).
const USER_FILE: &str = "basic-auth-user";
const PASSWORD_FILE: &str = "basic-auth-password";
/// A file longer than this is no user's name and no password.
const MAX_SECRET: u64 = 4096;
/// Wrong logins from one address within [`WINDOW`]; after that it is not listened to until the window is over.
const MOST_FAILURES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// How many addresses are told apart. Those that share a place share its count, so that memory is bounded whoever comes.
const PLACES: usize = 4096;

/// What `WWW-Authenticate` says to those who are not let in: the word that clients know (wire contract §3.2).
pub const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"Restricted\"");

/// The way to the management API.
pub struct Gate {
    login: Option<Login>,
    failures: Mutex<Failures>,
}

/// The login that is asked for. Its password is known by its digest only.
struct Login {
    user: Arc<str>,
    digest: [u8; 32],
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No login, or a wrong one.
    Unknown,
    /// Too many wrong ones: come again after this many seconds.
    TooMany(u32),
}

impl Gate {
    /// A gate that is open to everybody.
    #[must_use]
    pub fn open() -> Self {
        Self::new(None)
    }

    /// A gate for this login.
    #[must_use]
    pub fn of(user: &str, password: &str) -> Self {
        Self::new(Some(Login {
            user: user.into(),
            digest: digest(format!("{user}:{password}").as_bytes()),
        }))
    }

    fn new(login: Option<Login>) -> Self {
        Self {
            login,
            failures: Mutex::new(Failures::new()),
        }
    }

    /// A gate for the login in the files of a folder. What is given already needs no file.
    ///
    /// # Errors
    /// One sentence: which file is missing or empty, and what to do.
    pub fn from_files(
        folder: &Path,
        user: Option<&str>,
        password: Option<&str>,
    ) -> Result<Self, String> {
        let part = |given: Option<&str>, file: &str, setting: &str| match given {
            Some(given) => Ok(given.to_owned()),
            None => read(&folder.join(file)).map_err(|why| {
                format!(
                    "basic_auth=true needs a login: {why}; put it into that file, or into {setting}"
                )
            }),
        };
        let user = part(user, USER_FILE, "basic_auth_user")?;
        let password = part(password, PASSWORD_FILE, "basic_auth_password")?;
        if user.contains(':') {
            return Err("basic auth: a user's name has no colon in it".to_owned());
        }
        Ok(Self::of(&user, &password))
    }

    /// Whether everybody is let in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.login.is_none()
    }

    /// Lets somebody in, and says who it is; while the gate is open nobody is asked.
    ///
    /// # Errors
    /// See [`Denied`].
    pub fn admit(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<Arc<str>, Denied> {
        let Some(login) = &self.login else {
            return Ok("anyone".into());
        };
        let now = Instant::now();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = failures.wait(peer, now) {
            return Err(Denied::TooMany(wait));
        }
        let Some(given) = basic(headers) else {
            // Nothing was tried.
            return Err(Denied::Unknown);
        };
        if bool::from(digest(&given)[..].ct_eq(&login.digest[..])) {
            return Ok(login.user.clone());
        }
        failures.failed(peer, now);
        Err(Denied::Unknown)
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// `user:password` of a Basic login (RFC 7617).
fn basic(headers: &HeaderMap) -> Option<Vec<u8>> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, login) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("basic")
        .then(|| STANDARD.decode(login.trim()).ok())
        .flatten()
}

fn read(file: &Path) -> Result<String, String> {
    let wrong = |error: std::io::Error| format!("cannot read {}: {error}", file.display());
    if std::fs::metadata(file).map_err(wrong)?.len() > MAX_SECRET {
        return Err(format!(
            "{} is longer than {MAX_SECRET} bytes",
            file.display()
        ));
    }
    let text = std::fs::read_to_string(file).map_err(wrong)?;
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("{} is empty", file.display()));
    }
    Ok(text.to_owned())
}

/// Wrong logins by address, in a fixed number of places.
struct Failures {
    places: Vec<Place>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Default)]
struct Place {
    count: u32,
    since: Option<Instant>,
}

impl Failures {
    fn new() -> Self {
        Self {
            places: vec![Place::default(); PLACES],
            hasher: RandomState::new(),
        }
    }

    /// How many seconds an address has to wait, if it has to.
    fn wait(&mut self, peer: Option<IpAddr>, now: Instant) -> Option<u32> {
        let place = self.place(peer);
        let left = WINDOW
            .checked_sub(now.duration_since(place.since?))
            .unwrap_or_default();
        if left.is_zero() {
            *place = Place::default();
        }
        (place.count >= MOST_FAILURES).then(|| u32::try_from(left.as_secs()).unwrap_or(0) + 1)
    }

    fn failed(&mut self, peer: Option<IpAddr>, now: Instant) {
        let place = self.place(peer);
        place.since.get_or_insert(now);
        place.count += 1;
    }

    /// Whoever has an IPv6 network has all its addresses: it counts as one.
    fn place(&mut self, peer: Option<IpAddr>) -> &mut Place {
        let source = peer.map(|peer| match peer {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        });
        #[expect(clippy::cast_possible_truncation, reason = "only the remainder counts")]
        let number = self.hasher.hash_one(source) as usize % PLACES;
        &mut self.places[number]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    fn login(user: &str, password: &str) -> HeaderMap {
        header(&format!(
            "Basic {}",
            STANDARD.encode(format!("{user}:{password}"))
        ))
    }

    const PEER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    #[test]
    fn only_the_one_login_is_let_in() {
        let gate = Gate::of("admin", "s3cret");
        assert_eq!(
            gate.admit(&login("admin", "s3cret"), PEER)
                .unwrap()
                .as_ref(),
            "admin"
        );
        let lower = STANDARD.encode("admin:s3cret");
        assert!(gate.admit(&header(&format!("basic {lower}")), PEER).is_ok());
        for wrong in [
            login("admin", "s3cre"),
            login("admin", "s3crets"),
            login("root", "s3cret"),
            header("Bearer "),
            header("Basic ?"),
            HeaderMap::new(),
        ] {
            assert_eq!(gate.admit(&wrong, PEER), Err(Denied::Unknown));
        }
    }

    #[test]
    fn while_there_is_no_login_every_header_is_ignored() {
        let gate = Gate::open();
        for headers in [
            HeaderMap::new(),
            header("Bearer "),
            login("x", "y"),
            header("nonsense"),
        ] {
            assert_eq!(gate.admit(&headers, PEER).unwrap().as_ref(), "anyone");
        }
    }

    #[test]
    fn after_ten_wrong_logins_an_address_waits_and_others_do_not() {
        let gate = Gate::of("admin", "s3cret");
        for _ in 0..MOST_FAILURES {
            assert_eq!(
                gate.admit(&login("admin", "guess"), PEER),
                Err(Denied::Unknown)
            );
        }
        let Err(Denied::TooMany(wait)) = gate.admit(&login("admin", "s3cret"), PEER) else {
            panic!("let in")
        };
        assert!((1..=61).contains(&wait), "{wait}");
        let others = (1..=20).map(|last| Some(IpAddr::from([10, 0, 0, last])));
        let let_in = others
            .filter(|other| gate.admit(&login("admin", "s3cret"), *other).is_ok())
            .count();
        assert!(let_in >= 18, "{let_in} of 20; two may share the place");
    }

    #[test]
    fn a_window_ends() {
        let mut failures = Failures::new();
        let now = Instant::now();
        (0..MOST_FAILURES).for_each(|_| failures.failed(PEER, now));
        assert!(failures.wait(PEER, now + WINDOW / 2).is_some());
        assert!(failures.wait(PEER, now + WINDOW).is_none());
    }

    #[test]
    fn a_missing_file_is_named_with_what_to_do() {
        let told = Gate::from_files(Path::new("/nosuch"), None, None)
            .err()
            .unwrap();
        assert!(
            told.contains("/nosuch/basic-auth-user") && told.contains("basic_auth_user"),
            "{told}"
        );
        assert!(Gate::from_files(Path::new("/nosuch"), Some("a"), Some("b")).is_ok());
    }
}
