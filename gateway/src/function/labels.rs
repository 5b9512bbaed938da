//! Every label and annotation that is known, and what a misspelt one was meant to be. Pure.

/// The labels that functions may have, as docs/configuration.md lists them.
pub const LABELS: [&str; 18] = [
    "skep.enable",
    "skep.port",
    "skep.protocol",
    "skep.timeout",
    "skep.idle-timeout",
    "skep.max-body",
    "skep.max-in-flight",
    "skep.auth",
    "skep.retry",
    READY_PATH,
    "skep.route.host",
    "skep.route.path",
    "skep.route.strip",
    "skep.pids",
    "skep.tmp-size",
    "com.openfaas.scale.min",
    "com.openfaas.scale.max",
    "com.openfaas.scale.factor",
];

/// The annotations that functions of a stack file may have.
pub const ANNOTATIONS: [&str; 3] = ["skep.upstream", "skep.requires", READY_PATH];

const READY_PATH: &str = "com.openfaas.ready.http.path";

/// What the gateway itself keeps in labels.
const OWN: [&str; 4] = [
    "skep.asked.",
    "skep.secret",
    "skep.managed",
    "com.openfaas.annotations.",
];

/// What other platforms of this contract read: right there, and without effect here.
const ELSEWHERE: [&str; 13] = [
    "com.openfaas.function",
    "com.openfaas.uid",
    "com.openfaas.scale.zero",
    "com.openfaas.scale.zero-duration",
    "com.openfaas.scale.type",
    "com.openfaas.scale.target",
    "com.openfaas.scale.target-proportion",
    "com.openfaas.health.http.path",
    "com.openfaas.health.http.initialDelay",
    "com.openfaas.health.http.periodSeconds",
    "com.openfaas.ready.http.initialDelay",
    "com.openfaas.ready.http.periodSeconds",
    "com.openfaas.serviceaccount",
];

/// Longer names are nothing of ours.
const LONGEST: usize = 64;

/// Why a label of a function has no effect, if it looks like one of these.
#[must_use]
pub fn unknown_label(name: &str) -> Option<String> {
    let other = || {
        ANNOTATIONS
            .contains(&name)
            .then_some("an annotation, and no label")
    };
    unknown(name, &LABELS, other)
}

/// The same of an annotation.
#[must_use]
pub fn unknown_annotation(name: &str) -> Option<String> {
    let other = || {
        LABELS
            .contains(&name)
            .then_some("a label, and no annotation")
    };
    unknown(name, &ANNOTATIONS, other)
}

fn unknown(
    name: &str,
    known: &[&'static str],
    other: impl Fn() -> Option<&'static str>,
) -> Option<String> {
    let looks_like_one = name.contains("skep") || name.contains("openf");
    let is_fine = known.contains(&name)
        || ELSEWHERE.contains(&name)
        || OWN.iter().any(|prefix| name.starts_with(prefix));
    if !looks_like_one || is_fine || name.len() > LONGEST {
        return None;
    }
    if let Some(other) = other() {
        return Some(format!("it is {other}"));
    }
    match near(name, known.iter().copied().chain(ELSEWHERE)) {
        Some(near) => Some(format!("it is not known: did you mean {near}?")),
        None => name
            .starts_with("skep.")
            .then(|| "it is not known".to_owned()),
    }
}

/// The known name that a few typing errors lead to.
#[must_use]
pub fn near<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    // What they have in common at the front says nothing of how near they are.
    let tail = |text: &str| {
        let dots = text.rsplit_once('.');
        dots.map_or(text.len(), |(_, tail)| tail.len())
    };
    let scored = known
        .filter(|known| known.len().abs_diff(name.len()) <= 4)
        .filter_map(|known| {
            let lower = known.to_ascii_lowercase();
            let distance = strsim::osa_distance(&name, &lower);
            let allowed = (tail(known).max(tail(&name)) / 3).clamp(1, 4);
            let is_longer = name.starts_with(&lower) || lower.starts_with(&name);
            (distance <= allowed || is_longer).then_some((distance, known))
        });
    scored.min().map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_labels_are_found_and_others_left_alone() {
        for (label, near) in [
            ("skep.timeuot", "skep.timeout"),
            ("skep.max_in_flight", "skep.max-in-flight"),
            ("skep.Timeout", "skep.timeout"),
            ("skep-timeout", "skep.timeout"),
            ("com.openfaas.scale.mim", "com.openfaas.scale.min"),
            ("com.openfaas.scale.minimum", "com.openfaas.scale.min"),
            ("com.openfass.scale.max", "com.openfaas.scale.max"),
        ] {
            let why = unknown_label(label).unwrap_or_default();
            assert!(
                why.ends_with(&format!("did you mean {near}?")),
                "{label}: {why}"
            );
        }
        assert_eq!(unknown_label("skep.colour").unwrap(), "it is not known");
        assert!(
            unknown_label("skep.upstream")
                .unwrap()
                .contains("annotation")
        );
        assert!(
            unknown_annotation("skep.timeout")
                .unwrap()
                .contains("label")
        );
        for label in LABELS.iter().chain(&ELSEWHERE).chain(&[
            "skep.asked.limits.memory",
            "skep.secret.network",
            "skep.managed",
            "com.openfaas.cloud.git-owner",
            "com.example.skep.team",
            "function",
            "canary",
        ]) {
            assert_eq!(unknown_label(label), None, "{label}");
        }
        assert_eq!(unknown_annotation("topic"), None);
    }
}
