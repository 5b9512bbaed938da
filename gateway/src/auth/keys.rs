//! All keys: made, found, revoked. Whoever looks one up takes no lock; a change is kept before it holds.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::Denied;
use super::key::{self, Key, KeyId, Record};
use crate::state::{Document, State};

/// More than this are made by a program that went wrong.
const MOST_KEYS: usize = 1000;
const VERSION: u32 = 1;

/// The keys of this gateway, and of whoever else has its folder.
pub struct Keys {
    document: Document<Kept>,
    now: ArcSwap<HashMap<KeyId, Arc<Key>>>,
    /// Changes are published in the order in which they were made: a revoked key does not come back.
    turn: Mutex<()>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    keys: Vec<Record>,
}

/// Why a key was not made.
#[derive(Debug)]
pub enum NotMade {
    /// There are as many as there may be.
    TooMany(usize),
    /// It cannot be kept.
    NotKept(io::Error),
}

impl Keys {
    /// The keys that were made before.
    #[must_use]
    pub fn open(state: &State) -> Self {
        let keys = Self {
            document: state.document("keys", VERSION),
            now: ArcSwap::default(),
            turn: Mutex::default(),
        };
        keys.publish(keys.document.value());
        keys
    }

    /// Whether keys outlive the process.
    #[must_use]
    pub fn are_kept(&self) -> bool {
        self.document.has_file()
    }

    /// The key of this text, which somebody sent.
    ///
    /// # Errors
    /// When it is not known, or no longer good.
    pub(super) fn check(&self, text: &str) -> Result<Arc<Key>, Denied> {
        let (id, secret) = key::parse(text).ok_or(Denied::Unknown)?;
        let keys = self.now.load();
        let key = keys.get(&id).filter(|key| key.is(&secret));
        let key = key.ok_or(Denied::Unknown)?;
        let now = seconds();
        if key.is_over(now) {
            return Err(Denied::Expired(id));
        }
        key.used(now);
        Ok(key.clone())
    }

    /// All keys, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Key>> {
        let mut keys: Vec<_> = self.now.load().values().cloned().collect();
        keys.sort_by_key(|key| (key.record().created_at, key.record().id.to_string()));
        keys
    }

    /// Adds a key. Blocks while it is written.
    ///
    /// # Errors
    /// See [`NotMade`]; then there is no such key.
    pub fn add(&self, record: Record) -> Result<(), NotMade> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let added = self.document.change(|kept| {
            // Two of one id would be told apart by nobody; that it happens is as likely as never.
            let is_free = kept.keys.iter().all(|known| known.id != record.id);
            let has_room = kept.keys.len() < MOST_KEYS && is_free;
            if has_room {
                kept.keys.push(record);
            }
            has_room
        });
        let (kept, is_added) = added.map_err(NotMade::NotKept)?;
        self.publish(kept);
        if is_added {
            Ok(())
        } else {
            Err(NotMade::TooMany(MOST_KEYS))
        }
    }

    /// Takes a key away. From now on it opens nothing. Returns whether there was one. Blocks while that is written.
    ///
    /// # Errors
    /// When it could not be written: then the key is still good.
    pub fn remove(&self, id: KeyId) -> io::Result<bool> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, removed) = self.document.change(|kept| {
            let had = kept.keys.len();
            kept.keys.retain(|known| known.id != id);
            kept.keys.len() < had
        })?;
        self.publish(kept);
        Ok(removed)
    }

    /// Looks whether another gateway has changed the keys. Blocks.
    pub fn refresh(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = self.document.refreshed() {
            self.publish(kept);
        }
    }

    /// Keeps when keys were last used. Blocks.
    pub fn save_uses(&self) {
        let keys = self.now.load_full();
        let is_news = |key: &Arc<Key>| key.last_used_at() != key.record().last_used_at;
        if !self.document.is_kept() || !keys.values().any(is_news) {
            return;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let saved = self.document.change(|kept| {
            for record in &mut kept.keys {
                let used = keys.get(&record.id).and_then(|key| key.last_used_at());
                record.last_used_at = record.last_used_at.max(used);
            }
        });
        match saved {
            Ok((kept, ())) => self.publish(kept),
            Err(error) => tracing::warn!("when keys were last used could not be kept: {error}"),
        }
    }

    /// Makes these the keys. What was seen of a key's use stays with it.
    fn publish(&self, kept: Kept) {
        let known = self.now.load();
        let keys = kept.keys.into_iter().map(|record| {
            let id = record.id;
            let used = known.get(&id).and_then(|key| key.last_used_at());
            let key = Key::of(record);
            if let Some(at) = used {
                key.used(at);
            }
            (id, Arc::new(key))
        });
        self.now.store(Arc::new(keys.collect()));
    }
}

/// Seconds since 1970.
#[must_use]
pub fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::super::key::Wish;
    use super::*;

    fn made(keys: &Keys, name: &str) -> (KeyId, String) {
        let wish = Wish {
            name: name.to_owned(),
            ..Wish::default()
        };
        let (record, text) = Key::make(wish, seconds()).unwrap();
        let id = record.id;
        keys.add(record).unwrap();
        (id, text)
    }

    #[test]
    fn a_key_is_found_until_it_is_revoked() {
        let keys = Keys::open(&State::default());
        let (id, text) = made(&keys, "ci");
        let (other, another) = made(&keys, "cd");
        assert_eq!(keys.check(&text).unwrap().record().name, "ci");
        let mixed = format!("skep_{other}_{}", &text[18..]);
        assert!(matches!(keys.check(&mixed), Err(Denied::Unknown)));
        assert!(keys.list()[0].last_used_at().is_some() || keys.list()[1].last_used_at().is_some());
        assert!(keys.remove(id).unwrap() && !keys.remove(id).unwrap());
        assert!(matches!(keys.check(&text), Err(Denied::Unknown)));
        assert!(keys.check(&another).is_ok());
    }

    #[test]
    fn an_expired_key_opens_nothing() {
        let keys = Keys::open(&State::default());
        let wish = Wish {
            expires_in: Some(10),
            ..Wish::default()
        };
        let (record, text) = Key::make(wish, seconds() - 11).unwrap();
        keys.add(record).unwrap();
        assert!(matches!(keys.check(&text), Err(Denied::Expired(_))));
    }

    #[test]
    fn there_is_an_end_to_the_number_of_keys() {
        let keys = Keys::open(&State::default());
        (0..MOST_KEYS).for_each(|_| drop(made(&keys, "")));
        let (record, _) = Key::make(Wish::default(), 0).unwrap();
        assert!(matches!(keys.add(record), Err(NotMade::TooMany(_))));
        assert_eq!(keys.list().len(), MOST_KEYS);
    }
}
