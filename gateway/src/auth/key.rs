//! A key: what its holder writes, and what is kept of it.
//!
//! The text is `skep_<id>_<secret>`. The id is public: it finds the key and names it in lists and logs. The secret is 32 bytes
//! from the operating system, of which SHA-256 is kept: a slow password hash makes guessing dear where secrets are few, and nobody
//! gets through 2^256 of them however fast the hash is.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::scope::Scope;

/// How every key begins, so that those who look for secrets in files know one when they see it.
pub const PREFIX: &str = "skep_";
/// Bytes of an id and of a secret; the text has two hex digits for each.
const ID: usize = 6;
const SECRET: usize = 32;
/// The last use is known to the minute.
const COARSE: u64 = 60;

/// The public part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId([u8; ID]);

/// The digest of a key's secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretDigest([u8; 32]);

/// A key as it is kept. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its public part.
    pub id: KeyId,
    /// What it is for, in its maker's words.
    #[serde(default)]
    pub name: String,
    /// What is kept of its secret.
    pub digest: SecretDigest,
    /// What its holder may do.
    pub scopes: Vec<Scope>,
    /// The functions that may be called with it; none: all.
    #[serde(default)]
    pub functions: Vec<String>,
    /// When it was made.
    pub created_at: u64,
    /// Who made it.
    pub created_by: String,
    /// When it ends, if it does.
    #[serde(default)]
    pub expires_at: Option<u64>,
    /// When it was last used, to the minute, if it ever was.
    #[serde(default)]
    pub last_used_at: Option<u64>,
}

/// What somebody wants of a new key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// What it is for.
    pub name: String,
    /// What its holder may do.
    pub scopes: Vec<Scope>,
    /// The functions that may be called with it; none: all.
    pub functions: Vec<String>,
    /// Who makes it.
    pub created_by: String,
    /// In how many seconds it ends, if it does.
    pub expires_in: Option<u64>,
}

/// A key in use.
#[derive(Debug)]
pub struct Key {
    record: Record,
    /// Seconds since 1970; 0: never.
    last_used: AtomicU64,
}

impl Key {
    /// Makes a key. The second part is its text, which is known to nobody else, and to nobody after this.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn make(wish: Wish, now: u64) -> io::Result<(Record, String)> {
        let (mut id, mut secret) = ([0; ID], [0; SECRET]);
        for part in [&mut id[..], &mut secret[..]] {
            // So few bytes come at once (getrandom(2)).
            let filled = getrandom(&mut *part, GetRandomFlags::empty())?;
            if filled != part.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let id = KeyId(id);
        let record = Record {
            id,
            name: wish.name,
            digest: SecretDigest(Sha256::digest(secret).into()),
            scopes: wish.scopes,
            functions: wish.functions,
            created_at: now,
            created_by: wish.created_by,
            expires_at: wish.expires_in.map(|seconds| now.saturating_add(seconds)),
            last_used_at: None,
        };
        Ok((record, format!("{PREFIX}{id}_{}", Hex(&secret))))
    }

    /// A kept key.
    pub(super) fn of(record: Record) -> Self {
        Self {
            last_used: AtomicU64::new(record.last_used_at.unwrap_or(0)),
            record,
        }
    }

    /// What is known of it.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// When it was last used, to the minute.
    #[must_use]
    pub fn last_used_at(&self) -> Option<u64> {
        Some(self.last_used.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }

    pub(super) fn used(&self, now: u64) {
        let minute = now - now % COARSE;
        if self.last_used.load(Ordering::Relaxed) < minute {
            self.last_used.fetch_max(minute, Ordering::Relaxed);
        }
    }

    /// Whether its holder may do what asks for this scope.
    #[must_use]
    pub fn may(&self, needed: Scope) -> bool {
        self.record.scopes.iter().any(|scope| scope.covers(needed))
    }

    /// Whether its holder may call the function of this full name.
    #[must_use]
    pub fn may_call(&self, function: &str) -> bool {
        let functions = &self.record.functions;
        self.may(Scope::Invoke) && (functions.is_empty() || functions.iter().any(|f| f == function))
    }

    pub(super) fn is_over(&self, now: u64) -> bool {
        self.record.expires_at.is_some_and(|end| end <= now)
    }

    /// Whether this is its secret; takes as long whatever it is.
    pub(super) fn is(&self, secret: &Secret) -> bool {
        let digest: [u8; 32] = Sha256::digest(secret.0).into();
        digest[..].ct_eq(&self.record.digest.0[..]).into()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.id)?;
        if self.name.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.name)
    }
}

/// The secret part of a text that somebody sent.
pub(super) struct Secret([u8; SECRET]);

/// Takes a key's text apart, without an allocation; `None` if it is none.
pub(super) fn parse(text: &str) -> Option<(KeyId, Secret)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    Some((KeyId(unhex(id)?), Secret(unhex(secret)?)))
}

impl KeyId {
    /// The id that is written like this.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl TryFrom<String> for KeyId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a key's id has 12 hex digits")
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for SecretDigest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        unhex(&text)
            .map(Self)
            .ok_or("a key's digest has 64 hex digits")
    }
}

impl From<SecretDigest> for String {
    fn from(digest: SecretDigest) -> Self {
        Hex(&digest.0).to_string()
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Bytes of exactly so many lower-case digits: a key has one text only.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_text_and_is_kept_without_it() {
        let (record, text) = Key::make(Wish::default(), 1_000).unwrap();
        assert_eq!(text.len(), 82);
        let (id, secret) = parse(&text).unwrap();
        assert_eq!(id, record.id);
        let kept = serde_json::to_string(&record).unwrap();
        let again: Record = serde_json::from_str(&kept).unwrap();
        assert_eq!(again, record);
        assert!(!kept.contains(&text[18..]), "the secret is not kept");
        assert!(!format!("{record:?}").contains(&kept[kept.find("digest").unwrap() + 9..][..64]));
        let key = Key::of(record);
        assert!(key.is(&secret));
        let (other, another) = Key::make(Wish::default(), 1_000).unwrap();
        assert!(other.id != id && !key.is(&parse(&another).unwrap().1));
        let longer = format!("{text}0");
        let upper = text.to_uppercase().replace("SKEP_", PREFIX);
        for wrong in [
            "",
            "skep_",
            "skep__",
            &text[1..],
            &text[..81],
            &longer,
            &upper,
        ] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_key_ends_and_its_last_use_is_known_to_the_minute() {
        let wish = Wish {
            expires_in: Some(60),
            ..Wish::default()
        };
        let key = Key::of(Key::make(wish, 1_000).unwrap().0);
        assert!(!key.is_over(1_059) && key.is_over(1_060));
        assert_eq!(key.last_used_at(), None);
        for (at, seen) in [(1_019, 960), (1_020, 1_020), (1_000, 1_020)] {
            key.used(at);
            assert_eq!(key.last_used_at(), Some(seen), "{at}");
        }
    }

    #[test]
    fn a_key_may_be_for_some_functions_only() {
        let key = |scopes: &[Scope], functions: &[&str]| {
            let wish = Wish {
                scopes: scopes.to_vec(),
                functions: functions.iter().map(|&name| name.to_owned()).collect(),
                ..Wish::default()
            };
            Key::of(Key::make(wish, 1_000).unwrap().0)
        };
        assert!(key(&[Scope::Invoke], &[]).may_call("shop"));
        assert!(key(&[Scope::Admin], &[]).may_call("shop"));
        let shop = key(&[Scope::Read, Scope::Invoke], &["shop"]);
        assert!(shop.may_call("shop") && !shop.may_call("shopping"));
        assert!(!key(&[Scope::Deploy], &[]).may_call("shop"));
    }
}
