//! Wrong logins and keys by address, so that guessing ends; in a fixed number of places.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong ones from one address within [`WINDOW`]; after that guessing slows down until the window is over.
pub(super) const MOST_FAILURES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// From one comparison of a login to the next, for an address with too many wrong ones.
const SPACING: Duration = Duration::from_millis(100);
/// The longest that a login waits for its turn.
const LONGEST_TURN: Duration = Duration::from_secs(10);
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
    /// When the next login is compared at the earliest.
    next: Option<Instant>,
}

impl Failures {
    pub(super) fn new() -> Self {
        Self {
            places: Mutex::new(vec![Place::default(); PLACES]),
            hasher: RandomState::new(),
        }
    }

    /// How many seconds are left of the window, if an address has had too many wrong ones in it.
    pub(super) fn wait(&self, peer: Option<IpAddr>, now: Instant) -> Option<u32> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &mut places[self.number(peer)];
        let left = WINDOW
            .checked_sub(now.duration_since(place.since?))
            .unwrap_or_default();
        if left.is_zero() {
            *place = Place {
                next: place.next,
                ..Place::default()
            };
        }
        (place.count >= MOST_FAILURES).then(|| u32::try_from(left.as_secs()).unwrap_or(0) + 1)
    }

    /// Counts a wrong one. Returns how many seconds its sender should wait, if there were too many.
    pub(super) fn failed(&self, peer: Option<IpAddr>, now: Instant, what: &str) -> Option<u32> {
        let count = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            let place = &mut places[self.number(peer)];
            place.since.get_or_insert(now);
            place.count = place.count.saturating_add(1);
            place.count
        };
        if count == MOST_FAILURES {
            let peer = peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string());
            tracing::warn!(
                peer,
                "{MOST_FAILURES} wrong {what} within {WINDOW:?}: further ones from this address get 429, and right ones pass"
            );
        }
        (count > MOST_FAILURES).then(|| self.wait(peer, now).unwrap_or(1))
    }

    /// How long a login waits before it is compared: past too many wrong ones, as long as others of its address are before it.
    /// A right one passes, but guesses do not come faster than one in [`SPACING`].
    ///
    /// # Errors
    /// More are before it than [`LONGEST_TURN`] has room for: after how many seconds there is some.
    pub(super) fn turn(&self, peer: Option<IpAddr>, now: Instant) -> Result<Duration, u32> {
        if self.wait(peer, now).is_none() {
            return Ok(Duration::ZERO);
        }
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &mut places[self.number(peer)];
        let turn = place.next.map_or(now, |next| next.max(now));
        let delay = turn.duration_since(now);
        if delay > LONGEST_TURN {
            return Err(1);
        }
        place.next = Some(turn + SPACING);
        Ok(delay)
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
        for _ in 0..MOST_FAILURES {
            failures.failed(peer, now, "logins");
        }
        assert!(failures.wait(peer, now + WINDOW / 2).is_some());
        assert!(failures.wait(peer, now + WINDOW).is_none());
    }

    #[test]
    fn past_too_many_wrong_ones_comparisons_of_an_address_are_spaced_and_bounded() {
        let failures = Failures::new();
        let [peer, other] = [1, 2].map(|last| Some(IpAddr::from([192, 0, 2, last])));
        let now = Instant::now();
        for _ in 0..MOST_FAILURES {
            assert_eq!(failures.turn(peer, now), Ok(Duration::ZERO));
            assert_eq!(failures.failed(peer, now, "logins"), None);
        }
        assert!(failures.failed(peer, now, "logins").is_some());
        let turns: Vec<_> = (0..200)
            .map_while(|_| failures.turn(peer, now).ok())
            .collect();
        assert_eq!(turns[..3], [0, 1, 2].map(|turn| SPACING * turn));
        assert!(turns.len() <= 101, "{}", turns.len());
        assert_eq!(failures.turn(other, now), Ok(Duration::ZERO));
        // A new window does not bring the queue to an end.
        let later = now + LONGEST_TURN + SPACING;
        assert_eq!(failures.turn(peer, later), Ok(Duration::ZERO));
    }
}
