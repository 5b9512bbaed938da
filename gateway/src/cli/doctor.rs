//! Is everything in order? The gateway, the engine, the network, the functions, looked at one after the other; where something is not as
//! it should be, what to do.

mod engine;
mod functions;
mod gateway;
mod network;

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::client::print;
use super::gateway::Gateway;
use crate::config::Config;

/// Two clocks that are further apart are told; answers say the time in whole seconds.
const APART: Duration = Duration::from_secs(3);

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    what: &'static str,
    /// Whether it works. What works may still have advice.
    good: bool,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            good: true,
            found: found.into(),
            advice: None,
        }
    }

    /// It works, and could be better.
    fn fair(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..Self::good(what, found)
        }
    }

    fn bad(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            good: false,
            ..Self::fair(what, found, advice)
        }
    }
}

/// Looks at everything and tells it.
///
/// # Errors
/// How many things are not in order.
pub(super) async fn examine(
    gateway: &Gateway,
    config: &Config,
    as_json: bool,
) -> Result<(), String> {
    let mut findings = Vec::new();
    let served = gateway::look(gateway, &mut findings).await;
    if !served.is_local {
        engine::look(config, &served.functions, &mut findings).await;
    }
    if as_json {
        let findings = serde_json::to_string(&findings).unwrap_or_default();
        print(&format!("{findings}\n"));
    } else {
        findings.iter().for_each(|finding| print(&shown(finding)));
    }
    match findings.iter().filter(|finding| !finding.good).count() {
        0 => Ok(()),
        1 => Err("one thing is not in order".to_owned()),
        count => Err(format!("{count} things are not in order")),
    }
}

fn shown(finding: &Finding) -> String {
    let mark = match (finding.good, &finding.advice) {
        (true, None) => "ok ",
        (true, Some(_)) => "see",
        (false, _) => "BAD",
    };
    let advice = finding.advice.iter();
    let advice = advice.map(|advice| format!("     {:12} {advice}\n", ""));
    std::iter::once(format!("{mark}  {:12} {}\n", finding.what, finding.found))
        .chain(advice)
        .collect()
}

/// What another clock says beside this machine's, if that is worth a word.
fn clock(whose: &str, theirs: SystemTime, ours: SystemTime) -> Option<Finding> {
    let (apart, which) = match theirs.duration_since(ours) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    (apart > APART).then(|| {
        let advice =
            "have both ask a time server: certificates, logs and Swarm itself go by the time";
        let seconds = apart.as_secs();
        Finding::fair(
            "clock",
            format!("{whose} is {seconds} s {which} this machine's"),
            advice,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_shows_whether_there_is_something_to_do_and_whether_it_must_be_done() {
        assert_eq!(
            shown(&Finding::good("login", "fine")),
            "ok   login        fine\n"
        );
        assert!(shown(&Finding::fair("login", "open", "close it")).starts_with("see  login"));
        assert_eq!(
            shown(&Finding::bad("login", "none", "make one")),
            "BAD  login        none\n                  make one\n"
        );
    }

    #[test]
    fn clocks_are_told_when_they_are_apart() {
        let now = SystemTime::now();
        let later = now + Duration::from_secs(90);
        assert_eq!(clock("the gateway's clock", now, now), None);
        let told = clock("the gateway's clock", later, now).unwrap();
        assert_eq!(
            told.found,
            "the gateway's clock is 90 s ahead of this machine's"
        );
        let told = clock("the gateway's clock", now, later).unwrap();
        assert!(told.good && told.found.contains("90 s behind"), "{told:?}");
    }
}
