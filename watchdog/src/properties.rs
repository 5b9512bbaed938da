//! What holds for every head, command line and duration, tried on thousands of random ones; `PROPERTY_CASES` of each.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::string::{RegexGeneratorStrategy, string_regex};

use crate::cgi::{self, Dialect, Inherited};
use crate::command::split;
use crate::duration::{parse, show};
use crate::hops;

/// As many as `make test` has time for; `make soak` asks for more.
const CASES: u32 = 20_000;

/// Lines that one shell splits.
const LINES_PER_SHELL: usize = 100;

/// Not the variable of the library, which would count shells instead of lines.
fn cases() -> u32 {
    let asked = std::env::var("PROPERTY_CASES").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(CASES)
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        // What has failed once becomes a test of its own.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Texts of a pattern, which is read once.
fn text(pattern: &str) -> RegexGeneratorStrategy<String> {
    string_regex(pattern).unwrap()
}

// ---- head → environment

type Headers = Vec<(HeaderName, HeaderValue)>;

/// Names that are special somewhere, and others; few, so that they are often repeated.
fn header_name() -> impl Strategy<Value = HeaderName> {
    let known = select(vec![
        "proxy",
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "upgrade",
        "proxy-connection",
        "method",
        "path",
        "query",
        "contentlength",
        "content_length",
        "x_forged",
        "x-forged",
        "x-a",
        "accept",
    ]);
    prop_oneof![
        3 => known.prop_map(HeaderName::from_static),
        1 => text("[a-z0-9!#$%&'*+.^`|~_-]{1,8}").prop_map(|name| HeaderName::try_from(name).unwrap()),
    ]
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    let byte = prop_oneof![Just(b'\t'), b' '..=b'~', 0x80..=0xff_u8];
    prop_oneof![
        select(vec![
            "x-a, close",
            "upgrade",
            "Keep-Alive",
            "x-forged,te",
            "5",
            "chunked"
        ])
        .prop_map(HeaderValue::from_static),
        vec(byte, 0..12).prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap()),
    ]
}

fn headers() -> impl Strategy<Value = Headers> {
    vec((header_name(), header_value()), 0..8)
}

fn head() -> impl Strategy<Value = (Parts, Headers)> {
    let escape = text("%[0-9a-fA-F]{2}|%[g-z]|[a-zA-Z0-9._~!$&'()*+,;=:@/-]{1,3}");
    let path = vec(escape, 0..6).prop_map(|parts| format!("/{}", parts.concat()));
    let query = proptest::option::of(text("[a-z=&%?/]{0,6}"));
    (select(vec!["GET", "POST", "BREW"]), path, query, headers()).prop_map(
        |(method, path, query, headers)| {
            let target = query.map_or(path.clone(), |query| format!("{path}?{query}"));
            let mut request = Request::builder()
                .method(method)
                .uri(target)
                .body(())
                .unwrap();
            *request.headers_mut() = map(&headers);
            (request.into_parts().0, headers)
        },
    )
}

fn map(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name, value.clone());
    }
    map
}

/// The names that belong to the connection, found in another way than the watchdog does.
fn of_connection(headers: &Headers) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = headers
        .iter()
        .filter(|(name, value)| name == "connection" && value.to_str().is_ok())
        .flat_map(|(_, value)| value.to_str().unwrap().split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for kept in ["content-length", "host", "trailer"] {
        names.remove(kept);
    }
    let always = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
    ];
    names.extend(always.map(str::to_owned));
    names
}

/// The variables that a head stands for, by the contract's words.
fn variables(head: &Parts, headers: &Headers) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let hop = of_connection(headers);
    let mut variables: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (name, value) in headers {
        let name = name.as_str();
        // The last one differs from a computed one in the case of a letter only.
        let is_dangerous = name == "proxy" || name == "contentlength";
        if is_dangerous || name.contains('_') || hop.contains(name) {
            continue;
        }
        let words = name.split('-').map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_ascii_uppercase() + rest
        });
        let joined = variables
            .entry(format!("Http_{}", words.collect::<Vec<_>>().join("_")))
            .and_modify(|joined| joined.extend(b", "))
            .or_default();
        joined.extend(value.as_bytes());
    }
    let first = |wanted: &str| headers.iter().find(|(name, _)| name == wanted);
    let length = match (first("transfer-encoding"), first("content-length")) {
        (Some(_), _) => "-1".to_owned(),
        (None, Some((_, value))) => value.to_str().unwrap_or("0").to_owned(),
        (None, None) => "0".to_owned(),
    };
    variables.insert("Http_ContentLength".into(), length.clone().into());
    variables.insert("Http_Content_Length".into(), length.into());
    variables.insert("Http_Method".into(), head.method.as_str().into());
    variables.insert("Http_Path".into(), unescaped(head.uri.path()));
    variables.remove("Http_Query");
    if let Some(query) = head.uri.query().filter(|query| !query.is_empty()) {
        variables.insert("Http_Query".into(), query.into());
    }
    variables
        .into_iter()
        .map(|(name, value)| (name.into_bytes(), value))
        .collect()
}

/// Percent-decoding from the end to the front, where an escape is seen when its `%` is.
fn unescaped(path: &str) -> Vec<u8> {
    let mut reversed: Vec<u8> = Vec::new();
    let mut literal = 0;
    for byte in path.bytes().rev() {
        let digits: Vec<u8> = reversed.iter().rev().take(2).copied().collect();
        let code = std::str::from_utf8(&digits)
            .ok()
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            // What has been decoded already is not part of another escape.
            Some(code) if byte == b'%' && digits.len() == 2 && literal >= 2 => {
                reversed.truncate(reversed.len() - 2);
                reversed.push(code);
                literal = 0;
            }
            _ => {
                reversed.push(byte);
                literal += 1;
            }
        }
    }
    reversed.reverse();
    reversed
}

/// All of a run's environment, by name.
fn environment(head: &Parts) -> Vec<(Vec<u8>, Vec<u8>)> {
    let own = [
        ("HOME", "/h"),
        ("Http_Path", "/own"),
        ("Http_Own", "kept"),
        ("skep_x", "private"),
    ];
    let inherited = Inherited::new(own.map(|(name, value)| (name.into(), value.into())));
    let request = cgi::describe(head, Dialect::Classic).unwrap();
    let entries = cgi::environment(&inherited, "m", &request);
    let halves = |entry: &[u8]| {
        let at = entry.iter().position(|byte| *byte == b'=').unwrap();
        (entry[..at].to_vec(), entry[at + 1..].to_vec())
    };
    entries.iter().map(halves).collect()
}

proptest! {
    #![proptest_config(config(cases()))]

    #[test]
    fn an_environment_has_what_the_contract_says_no_proxy_no_line_break_and_nothing_else((head, headers) in head()) {
        let mut expected = variables(&head, &headers);
        for (name, value) in [("HOME", "/h"), ("SKEP_RUN", "m"), ("Http_Own", "kept")] {
            expected.entry(name.into()).or_insert(value.into());
        }
        let mut found = environment(&head);
        for (name, value) in &found {
            prop_assert!(!name.eq_ignore_ascii_case(b"http_proxy"));
            prop_assert!(!name.contains(&0) && !name.contains(&b'\n'));
            // The decoded path may hold any byte; what has a NUL is refused before.
            let is_path = name == b"Http_Path";
            prop_assert!(is_path || !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')));
            prop_assert!(!value.contains(&0) || cgi::has_nul(head.uri.path()));
        }
        found.sort();
        prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn every_byte_of_a_path_can_be_escaped(bytes: Vec<u8>, is_upper: bool) {
        let escape = |byte: &u8| if is_upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
        let path = format!("/{}", bytes.iter().map(escape).collect::<String>());
        prop_assert_eq!(cgi::decoded(&path), [b"/", &bytes[..]].concat());
        prop_assert_eq!(cgi::has_nul(&path), bytes.contains(&0));
    }

    #[test]
    fn nothing_of_the_connection_passes_and_everything_else_does(headers in headers()) {
        let hop = of_connection(&headers);
        let mut passed = map(&headers);
        hops::towards_client(&mut passed, false);
        let mut expected = map(&headers);
        for name in hop.iter().map(String::as_str).chain(["transfer-encoding", "x-skep-not-accepted"]) {
            expected.remove(name);
        }
        prop_assert_eq!(passed, expected);
    }
}

// ---- fprocess

/// A character as a command line writes it, and as the command gets it.
fn character() -> impl Strategy<Value = (String, String)> {
    let any = prop_oneof![
        select(" \t\n'\"\\$`;&|<>()*?[]#~{}!=%".chars().collect::<Vec<_>>()),
        select("abcxyzé日".chars().collect::<Vec<_>>()),
    ];
    (any, 0..4).prop_map(|(c, way)| {
        let plain = c.is_alphanumeric();
        let written = match way {
            0 if plain => c.to_string(),
            1 if c != '\'' => format!("'{c}'"),
            2 if c != '\n' => format!("\\{c}"),
            _ if matches!(c, '"' | '\\' | '$' | '`') => format!("\"\\{c}\""),
            _ => format!("\"{c}\""),
        };
        (written, c.to_string())
    })
}

/// A line and its words; each word is in quotes at least once, so that the line is split as a shell would.
fn line() -> impl Strategy<Value = (String, Vec<String>)> {
    let word = vec(character(), 0..6);
    let gap = select(vec![" ", "  ", "\t", " \t "]);
    vec((word, gap), 1..6).prop_map(|words| {
        let mut line = String::new();
        let mut meant = Vec::new();
        for (characters, gap) in words {
            line += &format!(
                "{}''{gap}",
                characters
                    .iter()
                    .map(|(written, _)| written.as_str())
                    .collect::<String>()
            );
            meant.push(characters.into_iter().map(|(_, c)| c).collect());
        }
        (line, meant)
    })
}

/// Any line that a shell reads as words and nothing else: bare backslashes, unescaped ones in double quotes, a quote
/// that begins in the middle of a word.
fn shell_line() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => text("[a-z]{1,3}"),
        2 => select(vec![" ", "  ", "\t"]).prop_map(str::to_owned),
        1 => text("'[ -&(-~é\n]{0,5}'"),
        1 => text("\"([a-z ';&|<>()*?#~é\n]|\\\\[ -~\n]){0,5}\""),
        1 => text("\\\\[ -~é\n]"),
    ];
    vec(piece, 1..8).prop_map(|pieces| format!("''{}", pieces.concat()))
}

/// How `sh` splits these lines.
fn by_shell(lines: &[String]) -> Vec<Vec<String>> {
    // A word that no line has stands after each line.
    let script: String = lines
        .iter()
        .map(|line| format!("printf '%s\\0' {line}\nprintf '<end>\\0'\n"))
        .collect();
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let mut found = vec![Vec::new()];
    for word in text.split_terminator('\0') {
        match word {
            "<end>" => found.push(Vec::new()),
            word => found.last_mut().unwrap().push(word.to_owned()),
        }
    }
    found.pop();
    found
}

proptest! {
    #![proptest_config(config(cases()))]

    #[test]
    fn without_quotes_the_words_joined_are_the_line(line in text("[a-z\\\\$;é][a-z \\\\$;é]{0,20}")) {
        prop_assert_eq!(split(&line).unwrap().join(" "), line);
    }

    #[test]
    fn words_in_any_kind_of_quotes_arrive_as_they_were_meant((line, words) in line()) {
        if words[0].is_empty() {
            prop_assert!(split(&line).is_err());
        } else {
            prop_assert_eq!(split(&line).unwrap(), words);
        }
    }

    #[test]
    fn any_line_is_split_or_refused_with_a_reason(line in text("[ -~\0é'\"\\\\]{0,20}")) {
        match split(&line) {
            Ok(words) => prop_assert!(!words[0].is_empty()),
            Err(reason) => prop_assert!(!reason.is_empty()),
        }
    }
}

proptest! {
    #![proptest_config(config(cases() / LINES_PER_SHELL as u32))]

    #[test]
    fn a_shell_splits_it_in_the_same_way(lines in vec(shell_line(), LINES_PER_SHELL)) {
        for (line, words) in lines.iter().zip(by_shell(&lines)) {
            // Behind a program's name, for a line may begin with an empty word.
            let split = split(&format!("program {line}"));
            prop_assert_eq!(&split.unwrap()[1..], &words[..], "{:?}", line);
        }
    }
}

// ---- durations

const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The longest one that Go can hold.
const LONGEST: u128 = i64::MAX as u128;

/// A number with a unit as Go's grammar has it, and the nanoseconds that it stands for.
fn component() -> impl Strategy<Value = (String, u128)> {
    let whole = prop_oneof![Just(String::new()), text("[0-9]{1,6}"), text("[0-9]{7,19}")];
    let fraction = prop_oneof![Just(None), text("[0-9]{0,18}").prop_map(Some)];
    (whole, fraction, select(UNITS.to_vec())).prop_map(|(whole, fraction, (unit, nanos))| {
        let digits = fraction.clone().unwrap_or_default();
        // One digit at least makes a number.
        let whole = if whole.is_empty() && digits.is_empty() {
            "0".to_owned()
        } else {
            whole
        };
        let point = if fraction.is_some() { "." } else { "" };
        let number: u128 = format!("0{whole}{digits}").parse().unwrap();
        let scale = 10_u128.pow(digits.len() as u32);
        // In two parts, because the product of a long number and an hour has no room.
        let value = number / scale * nanos + number % scale * nanos / scale;
        (format!("{whole}{point}{digits}{unit}"), value)
    })
}

proptest! {
    #![proptest_config(config(cases()))]

    #[test]
    fn a_shown_duration_is_read_as_the_same(nanos in 0..=i64::MAX as u64, round in 0..19_u32) {
        let duration = Duration::from_nanos(nanos / 10_u64.pow(round) * 10_u64.pow(round));
        prop_assert_eq!(parse(&show(duration)), Some(duration));
    }

    #[test]
    fn every_duration_of_gos_grammar_is_read_as_the_sum_of_its_parts(
        parts in vec(component(), 1..4), sign in select(vec!["", "+"])
    ) {
        let text: String = parts.iter().map(|(text, _)| text.as_str()).collect();
        let sum: u128 = parts.iter().map(|(_, nanos)| nanos).sum();
        let expected = (sum <= LONGEST).then(|| Duration::from_nanos(sum as u64));
        prop_assert_eq!(parse(&format!("{sign}{text}")), expected);
        prop_assert_eq!(parse(&format!("-{text}")), None);
    }

    #[test]
    fn whole_numbers_are_seconds(seconds: u64, sign in select(vec!["", "+", "0", "+00"])) {
        let nanos = u128::from(seconds) * 1_000_000_000;
        let expected = (nanos <= LONGEST).then(|| Duration::from_nanos(nanos as u64));
        prop_assert_eq!(parse(&format!("{sign}{seconds}")), expected);
    }

    #[test]
    fn what_is_no_duration_is_refused(written in text("[0-9.nuµmsh+ -]{0,8}")) {
        if !is_duration(&written) {
            prop_assert_eq!(parse(&written), None, "{}", written);
        }
    }
}

/// Whether a text has the shape of a duration: read from its end, unit by unit.
fn is_duration(text: &str) -> bool {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let is_number = |text: &str| {
        text.bytes().any(|byte| byte.is_ascii_digit())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.')
            && text.matches('.').count() <= 1
    };
    if unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return !unsigned.is_empty();
    }
    UNITS.iter().any(|(unit, _)| {
        unsigned.strip_suffix(unit).is_some_and(|rest| {
            let at = rest.rfind(|c: char| c.is_alphabetic()).map_or(0, |at| {
                at + rest[at..].chars().next().map_or(0, char::len_utf8)
            });
            let (before, number) = rest.split_at(at);
            is_number(number) && (before.is_empty() || is_duration(before))
        })
    })
}
