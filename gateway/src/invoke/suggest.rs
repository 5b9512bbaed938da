//! "Did you mean …?": the known name that is nearest to one that does not exist. Pure.

/// At most so many names are looked at: a miss must stay cheap, whoever sends many of them.
const LOOK_AT: usize = 1000;

/// A known name that starts with the asked one, contains it, or is a typing error away.
#[must_use]
pub fn near<'a>(asked: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known
        .take(LOOK_AT)
        .filter_map(|name| Some((score(asked, name)?, name)));
    scored.min().map(|(_, name)| name)
}

/// Smaller is nearer; `None` is too far.
fn score(asked: &str, name: &str) -> Option<usize> {
    if asked.len() >= 3 && (name.starts_with(asked) || asked.starts_with(name) && name.len() >= 3) {
        return Some(0);
    }
    let errors_allowed = asked.len().min(name.len()).div_ceil(3).min(3);
    if asked.len().abs_diff(name.len()) > errors_allowed {
        return None;
    }
    let distance = strsim::osa_distance(&asked.to_ascii_lowercase(), &name.to_ascii_lowercase());
    (distance <= errors_allowed).then_some(distance + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let known = ["catservice", "env", "wordcount", "base64"];
        let near = |asked| near(asked, known.into_iter());
        assert_eq!(near("catserv"), Some("catservice"), "a prefix");
        assert_eq!(near("catservices"), Some("catservice"));
        assert_eq!(near("wrodcount"), Some("wordcount"), "swapped letters");
        assert_eq!(near("Base64"), Some("base64"));
        assert_eq!(near("nothing-like-it"), None);
        assert_eq!(near("x"), None);
    }
}
