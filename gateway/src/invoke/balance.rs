//! Power of two choices: of two random endpoints, the one with fewer calls in flight.

use std::sync::Arc;

use crate::endpoint::Endpoint;

/// An endpoint that takes calls and was not tried yet.
#[must_use]
pub fn pick<'a>(
    endpoints: &'a [Arc<Endpoint>],
    tried: &[Arc<Endpoint>],
) -> Option<&'a Arc<Endpoint>> {
    let is_eligible = |endpoint: &&Arc<Endpoint>| {
        endpoint.is_ready() && !tried.iter().any(|one| Arc::ptr_eq(one, endpoint))
    };
    // Those whose own health check has not passed yet count only if there is no other.
    let of_health = |is_healthy| {
        endpoints
            .iter()
            .filter(is_eligible)
            .filter(move |one| one.is_healthy() == is_healthy)
    };
    let (count, is_healthy) = match of_health(true).count() {
        0 => (of_health(false).count(), false),
        healthy => (healthy, true),
    };
    let nth = |n| of_health(is_healthy).nth(n);
    let load = |n| nth(n).map_or(usize::MAX, |endpoint| endpoint.in_flight());
    // An endpoint may have left since it was counted: then there is no nth, and the caller looks again or gives up.
    nth(choose(count, load, |bound| fastrand::usize(..bound))?).or_else(|| nth(0))
}

/// The rule itself, pure: `count` candidates, their loads, a source of numbers below a bound.
fn choose(
    count: usize,
    load: impl Fn(usize) -> usize,
    mut random: impl FnMut(usize) -> usize,
) -> Option<usize> {
    if count < 2 {
        return (count == 1).then_some(0);
    }
    let first = random(count);
    // The second of the others, so that the two always differ.
    let second = (first + 1 + random(count - 1)) % count;
    Some(if load(second) < load(first) {
        second
    } else {
        first
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_taken_and_none_is_none() {
        let never = |_: usize| -> usize { unreachable!("no choice to make") };
        assert_eq!(choose(0, never, never), None);
        assert_eq!(choose(1, never, never), Some(0));
    }

    #[test]
    fn of_two_the_less_loaded_is_taken() {
        let loads = [5, 0, 3];
        for (first, step, expected) in [(0, 0, 1), (0, 1, 2), (1, 0, 1), (2, 0, 2), (2, 1, 1)] {
            let mut numbers = [first, step].into_iter();
            assert_eq!(
                choose(3, |n| loads[n], |_| numbers.next().unwrap()),
                Some(expected),
                "{first} {step}"
            );
        }
    }

    #[test]
    fn a_busy_endpoint_gets_no_call_while_another_is_idle() {
        let mut rng = fastrand::Rng::with_seed(7);
        assert!((0..1000).all(|_| choose(2, |n| [9, 0][n], |bound| rng.usize(..bound)) == Some(1)));
        let mut taken = [0; 4];
        for _ in 0..4000 {
            let n = choose(4, |n| taken[n], |bound| rng.usize(..bound)).unwrap();
            taken[n] += 1;
        }
        assert!(
            taken.iter().all(|count| (990..1010).contains(count)),
            "{taken:?}"
        );
    }
}
