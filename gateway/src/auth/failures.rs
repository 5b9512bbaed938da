//! Wrong logins and keys by address, so that guessing ends; in a fixed number of places.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong ones from one address within [`WINDOW`]; after that it is not listened to until the window is over.
pub(super) const MOST_FAILURES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// How many addresses are told apart. Those that share a place share its count, so that memory is bounded whoever comes.
const PLACES: usize = 4096;

pub(super) struct Failures {
    places: Mutex<Vec<Place>>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Default)]
struct Place {
    count: u32,
    since: Option<Instant>,
}

impl Failures {
    pub(super) fn new() -> Self {
        Self {
            places: Mutex::new(vec![Place::default(); PLACES]),
            hasher: RandomState::new(),
        }
    }

    /// How many seconds an address has to wait, if it has to.
    pub(super) fn wait(&self, peer: Option<IpAddr>, now: Instant) -> Option<u32> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &mut places[self.number(peer)];
        let left = WINDOW
            .checked_sub(now.duration_since(place.since?))
            .unwrap_or_default();
        if left.is_zero() {
            *place = Place::default();
        }
        (place.count >= MOST_FAILURES).then(|| u32::try_from(left.as_secs()).unwrap_or(0) + 1)
    }

    pub(super) fn failed(&self, peer: Option<IpAddr>, now: Instant) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &mut places[self.number(peer)];
        place.since.get_or_insert(now);
        place.count += 1;
    }

    /// Whoever has an IPv6 network has all its addresses: it counts as one.
    fn number(&self, peer: Option<IpAddr>) -> usize {
        let source = peer.map(|peer| match peer {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        });
        #[expect(clippy::cast_possible_truncation, reason = "only the remainder counts")]
        let number = self.hasher.hash_one(source) as usize % PLACES;
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends() {
        let failures = Failures::new();
        let peer = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        let now = Instant::now();
        (0..MOST_FAILURES).for_each(|_| failures.failed(peer, now));
        assert!(failures.wait(peer, now + WINDOW / 2).is_some());
        assert!(failures.wait(peer, now + WINDOW).is_none());
    }
}
