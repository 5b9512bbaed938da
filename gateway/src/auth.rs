//! Who may use the management API, and who may call a function that asks for a key.
//!
//! Behind a login, the management API lets in whoever knows it, and holders of keys as far as their scopes go; without one it is
//! open to everybody. A function asks for a key if its label says so, and for nothing else.

mod failures;
mod host_names;
pub mod key;
pub mod keys;
mod login;
pub mod password;
mod scope;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{HeaderMap, StatusCode};

use self::failures::Failures;
pub use self::host_names::HostNames;
use self::key::{Key, KeyId};
use self::keys::Keys;
pub use self::login::{Given as GivenLogin, Login};
pub use self::scope::Scope;

/// What `WWW-Authenticate` says to those who are not let in: the word that clients know (wire contract §3.2).
pub const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"Restricted\"");
/// The same for keys.
pub const KEY_CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"skep\"");

/// The way in.
pub struct Gate {
    login: Option<Login>,
    keys: Keys,
    wrong_logins: Failures,
    /// Counted apart: a program that goes on with a revoked key keeps nobody's login out.
    wrong_keys: Failures,
}

/// Who was let in.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Somebody: nobody is asked.
    Anyone,
    /// Whoever knows the login.
    Login(Arc<str>),
    /// The holder of a key.
    Key(Arc<Key>),
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No login and no key.
    Nothing,
    /// A wrong login, or a key that is not known or was revoked.
    Unknown,
    /// A key that has ended.
    Expired(KeyId),
    /// A key that does not reach so far.
    Lacks(KeyId, Scope),
    /// A key for other functions.
    Elsewhere(KeyId),
    /// Too many wrong ones: come again after this many seconds.
    TooMany(u32),
}

impl Gate {
    /// A gate for this login, or one that is open to everybody; and for these keys.
    #[must_use]
    pub fn new(login: Option<Login>, keys: Keys) -> Self {
        Self {
            login,
            keys,
            wrong_logins: Failures::new(),
            wrong_keys: Failures::new(),
        }
    }

    /// Whether everybody is let in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.login.is_none()
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Lets somebody in to do what asks for this scope; while the gate is open nobody is asked.
    ///
    /// # Errors
    /// See [`Denied`].
    pub fn admit(
        &self,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
        needed: Scope,
    ) -> Result<Identity, Denied> {
        let Some(login) = &self.login else {
            return Ok(Identity::Anyone);
        };
        let given = Given::of(headers).ok_or(Denied::Nothing)?;
        if let Some(text) = given.key() {
            return match self.holder(text, peer)? {
                key if key.may(needed) => Ok(Identity::Key(key)),
                key => Err(Denied::Lacks(key.record().id, needed)),
            };
        }
        if matches!(&given, Given::Basic(given) if login.is(given)) {
            return Ok(Identity::Login(login.user.clone()));
        }
        let failed = self.wrong_logins.failed(peer, Instant::now(), "logins");
        Err(failed.map_or(Denied::Unknown, Denied::TooMany))
    }

    /// How long to wait before [`admit`](Self::admit): nothing, unless too many wrong logins came from this address.
    ///
    /// # Errors
    /// [`Denied::TooMany`], when too many wait already.
    pub fn turn(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<Duration, Denied> {
        let is_login = || Given::of(headers).is_some_and(|given| given.key().is_none());
        if self.login.is_none() || !is_login() {
            return Ok(Duration::ZERO);
        }
        let turn = self.wrong_logins.turn(peer, Instant::now());
        turn.map_err(Denied::TooMany)
    }

    /// The key of this text. A good one is heard however many wrong ones came from the same address: nobody guesses one.
    fn holder(&self, text: &str, peer: Option<IpAddr>) -> Result<Arc<Key>, Denied> {
        self.keys.check(text).map_err(|denied| {
            if denied != Denied::Unknown {
                return denied;
            }
            let failed = self.wrong_keys.failed(peer, Instant::now(), "keys");
            failed.map_or(denied, Denied::TooMany)
        })
    }

    /// Lets a call of a function that asks for a key pass, and takes the key out of its head: it is not the function's business.
    ///
    /// # Errors
    /// See [`Denied`].
    pub fn admit_call(&self, headers: &mut HeaderMap, function: &str) -> Result<(), Denied> {
        let given = Given::of(headers).ok_or(Denied::Nothing)?;
        let key = self.keys.check(given.key().ok_or(Denied::Unknown)?)?;
        if !key.may_call(function) {
            let id = key.record().id;
            return Err(if key.may(Scope::Invoke) {
                Denied::Elsewhere(id)
            } else {
                Denied::Lacks(id, Scope::Invoke)
            });
        }
        headers.remove(AUTHORIZATION);
        Ok(())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::Login(user) => f.write_str(user),
            Self::Key(key) => key.fmt(f),
        }
    }
}

impl Denied {
    /// The status of an answer that tells of it.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Nothing | Self::Unknown | Self::Expired(_) => StatusCode::UNAUTHORIZED,
            Self::Lacks(..) | Self::Elsewhere(_) => StatusCode::FORBIDDEN,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// What is told to whoever wanted this.
    #[must_use]
    pub fn sentence(&self, wanted: &str) -> String {
        match self {
            Self::Nothing => format!("{wanted} asks for an API key: Authorization: Bearer <key>"),
            Self::Unknown => {
                format!(
                    "{wanted} asks for an API key, and the one sent is not known, or was revoked"
                )
            }
            Self::Expired(id) => format!("{wanted} asks for an API key, and key {id} has expired"),
            Self::Lacks(id, scope) => {
                format!("{wanted} asks for the scope {scope}, which key {id} does not have")
            }
            Self::Elsewhere(id) => format!("key {id} is for other functions than {wanted}"),
            Self::TooMany(seconds) => {
                format!("too many wrong logins or keys from your address: try again in {seconds} s")
            }
        }
    }

    /// When it makes sense to come again, in seconds.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Self::TooMany(seconds) => Some(*seconds),
            _ => None,
        }
    }
}

/// What somebody sent to be let in.
enum Given<'a> {
    /// A key.
    Bearer(&'a str),
    /// `user:password` (RFC 7617).
    Basic(Vec<u8>),
}

impl<'a> Given<'a> {
    /// What a head has; an empty key, as clients without a login send it, is nothing.
    fn of(headers: &'a HeaderMap) -> Option<Self> {
        let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, given) = value.split_once(' ')?;
        let given = given.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            Some(Self::Bearer(given)).filter(|_| !given.is_empty())
        } else if scheme.eq_ignore_ascii_case("basic") {
            STANDARD.decode(given).ok().map(Self::Basic)
        } else {
            None
        }
    }

    /// The key: a password that begins like one is one, whoever the user. Clients that know basic auth only send it so.
    fn key(&self) -> Option<&str> {
        match self {
            Self::Bearer(text) => Some(text),
            Self::Basic(login) => {
                let login = std::str::from_utf8(login).ok()?;
                let (_, password) = login.split_once(':')?;
                Some(password).filter(|password| password.starts_with(key::PREFIX))
            }
        }
    }
}

#[cfg(test)]
mod tests;
