//! A function's amounts of memory and processor on Docker: as numbers that it takes, and as text that says what is in force. Pure.

use super::model;
use crate::discovery::operate::{ASKED, Amounts};
use crate::function::Resources;
use crate::quantity;

/// The label that keeps an amount in the operator's own words: Swarm keeps numbers only, and clients compare texts.
pub(super) fn asked_label(bound: Bound, what: &str) -> String {
    format!("{ASKED}{}.{what}", bound.field())
}

/// What a function is given at most, or is sure to get.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    Limits,
    Requests,
}

impl Bound {
    /// The field of a deployment.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Limits => "limits",
            Self::Requests => "requests",
        }
    }

    /// The least memory that Docker takes: with a lower limit it starts no container, a smaller reservation it refuses.
    fn least(self) -> i64 {
        match self {
            Self::Limits => 6 << 20,
            Self::Requests => 4 << 20,
        }
    }

    /// Amounts that Docker takes: what is too little for it is raised, since a stack file made for Kubernetes may say `5Mi`.
    pub(super) fn taken(self, wanted: Amounts) -> Amounts {
        Amounts {
            memory: wanted.memory.map(|bytes| bytes.max(self.least())),
            ..wanted
        }
    }

    /// Says that memory was raised, if what was written is too little.
    pub(super) fn note(self, written: &Resources) -> Option<String> {
        let text = written.memory.as_deref()?;
        let least = self.least();
        let is_raised = quantity::memory(text).is_ok_and(|bytes| bytes < least);
        is_raised.then(|| {
            let (field, least) = (self.field(), least >> 20);
            format!("{field}.memory: {text} is less than Docker takes: {least}Mi is in force")
        })
    }

    /// As text: in the operator's own words where they still say what is in force, else in Kubernetes' units, the ones that clients
    /// of the contract know.
    pub(super) fn show(self, amounts: &model::Amounts, asked: Resources) -> Resources {
        let (bytes, nanos) = (amounts.memory_bytes, amounts.nano_cpus);
        let memory = match bytes {
            bytes if bytes % (1 << 20) == 0 => format!("{}Mi", bytes >> 20),
            bytes => bytes.to_string(),
        };
        let cpu = format!("{}m", nanos / 1_000_000);
        let memory_asked = asked.memory.filter(|text| {
            quantity::memory(text).is_ok_and(|asked| asked.max(self.least()) == bytes)
        });
        let cpu_asked = asked.cpu.filter(|text| quantity::cpu(text) == Ok(nanos));
        Resources {
            memory: memory_asked.or_else(|| (bytes > 0).then_some(memory)),
            cpu: cpu_asked.or_else(|| (nanos > 0).then_some(cpu)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(memory: &str) -> Resources {
        Resources {
            memory: Some(memory.to_owned()),
            cpu: None,
        }
    }

    #[test]
    fn memory_that_docker_does_not_take_is_raised_and_that_is_told() {
        for (bound, text, in_force) in [
            (Bound::Limits, "5Mi", 6 << 20),
            (Bound::Requests, "1Mi", 4 << 20),
        ] {
            let asked = Amounts {
                memory: quantity::memory(text).ok(),
                nano_cpus: None,
            };
            let taken = bound.taken(asked);
            assert_eq!(taken.memory, Some(in_force), "{text}");
            let kept = model::Amounts {
                memory_bytes: in_force,
                nano_cpus: 0,
            };
            let shown = bound.show(&kept, written(text));
            assert_eq!(shown, written(text), "it is told back as it was written");
            let note = bound.note(&shown).unwrap();
            let least = format!("{}Mi is in force", in_force >> 20);
            assert!(note.contains(text) && note.contains(&least), "{note}");
        }
        assert_eq!(Bound::Limits.note(&written("6Mi")), None);
        assert_eq!(Bound::Requests.note(&written("5Mi")), None);
    }

    #[test]
    fn what_somebody_else_has_changed_is_told_as_it_is() {
        let kept = model::Amounts {
            memory_bytes: 8 << 20,
            nano_cpus: 500_000_000,
        };
        let shown = Bound::Limits.show(&kept, written("5Mi"));
        assert_eq!(shown.memory.as_deref(), Some("8Mi"));
        assert_eq!(shown.cpu.as_deref(), Some("500m"));
        assert_eq!(Bound::Limits.note(&shown), None);
    }
}
