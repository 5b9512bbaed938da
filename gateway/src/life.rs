//! Where an endpoint is in its life, and what moves it on. Pure.

/// Where an endpoint is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Listed, but nobody got through to it yet.
    Starting,
    /// Takes calls.
    Ready,
    /// Took calls, then failed or said that it is about to end; probed until it takes calls again.
    Ejected,
    /// No longer listed: takes no new call, finishes the ones it has.
    Draining,
    /// No longer listed, and its last call has ended.
    Gone,
}

/// What happens to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The prober got through.
    Accepted,
    /// It is not to be called for now.
    Failed(Fault),
    /// The provider lists other labels for it: what was known of its readiness no longer counts.
    Relabelled,
    /// The provider lists it no longer: it was told to stop, or it has died.
    Unlisted,
    /// Its last call has ended.
    Emptied,
}

/// Why an endpoint is not to be called for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It, or its host, said no to a connection.
    Refused,
    /// Nothing came back in time.
    Silent,
    /// One call after the other ended without an answer.
    Reset,
    /// Its watchdog says that it is about to end.
    Draining,
    /// Its watchdog says that the function does not accept connections yet.
    NotReady,
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Ready,
        Self::Ejected,
        Self::Draining,
        Self::Gone,
    ];

    /// The state's name in metrics and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }

    /// Where an event leads from here; `None` where it changes nothing.
    #[must_use]
    pub fn after(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::Starting | Self::Ejected, Event::Accepted) => Some(Self::Ready),
            // What never took calls cannot be ejected: it is being probed already.
            (Self::Ready, Event::Failed(_)) => Some(Self::Ejected),
            // An ejected one is being probed already, with the new labels from now on.
            (Self::Ready, Event::Relabelled) => Some(Self::Starting),
            (Self::Starting | Self::Ready | Self::Ejected, Event::Unlisted) => Some(Self::Draining),
            (Self::Draining, Event::Emptied) => Some(Self::Gone),
            _ => None,
        }
    }
}

impl Event {
    /// Every event, for the metric whose label they are.
    pub const ALL: [Self; 9] = [
        Self::Accepted,
        Self::Failed(Fault::Refused),
        Self::Failed(Fault::Silent),
        Self::Failed(Fault::Reset),
        Self::Failed(Fault::Draining),
        Self::Failed(Fault::NotReady),
        Self::Relabelled,
        Self::Unlisted,
        Self::Emptied,
    ];

    /// The event's name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Failed(Fault::Refused) => "refused",
            Self::Failed(Fault::Silent) => "silent",
            Self::Failed(Fault::Reset) => "reset",
            Self::Failed(Fault::Draining) => "draining",
            Self::Failed(Fault::NotReady) => "not_ready",
            Self::Relabelled => "relabelled",
            Self::Unlisted => "unlisted",
            Self::Emptied => "emptied",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_leads_where_the_table_says_and_nowhere_else() {
        use State::{Draining, Ejected, Gone, Ready, Starting};
        let failed = Event::Failed(Fault::Reset);
        let table = [
            (Starting, Event::Accepted, Ready),
            (Ejected, Event::Accepted, Ready),
            (Ready, failed, Ejected),
            (Starting, Event::Unlisted, Draining),
            (Ready, Event::Unlisted, Draining),
            (Ejected, Event::Unlisted, Draining),
            (Draining, Event::Emptied, Gone),
        ];
        for state in State::ALL {
            for event in [Event::Accepted, failed, Event::Unlisted, Event::Emptied] {
                let listed = table
                    .iter()
                    .find(|(from, on, _)| (*from, *on) == (state, event));
                assert_eq!(
                    state.after(event),
                    listed.map(|(_, _, to)| *to),
                    "{state:?} {event:?}"
                );
            }
        }
    }

    #[test]
    fn every_state_is_at_its_own_place() {
        for (place, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, place);
        }
    }
}
