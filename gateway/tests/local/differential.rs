//! Thousands of mutated messages, read by the gateway, by the watchdog and by h11, another reader of HTTP/1.1 (from PyPI). No message is
//! taken by us in another meaning than h11's; where one refuses what the other takes, the difference stands in a table here.

mod mutate;
mod programs;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde_json::Value;

use self::programs::{Message, Outcome, Program, World};

/// What `make test` has time for, for each direction of each program; `DIFFERENTIAL_CASES` asks for another number.
const CASES: usize = 1000;
/// Cases that are played at once: most of their time is waiting.
const SIDE_BY_SIDE: usize = 12;

/// Why one reader takes what the other does not: a part of the refusing one's word, and why that is as it should be.
type Allowed = [(&'static str, &'static str)];

/// Messages that we take and h11 does not, by h11's word.
const TAKEN_BY_US: &Allowed = &[
    (
        "illegal request line",
        "empty lines before a request (RFC 9112 §2.2), bytes above 0x7E in a target, and methods and versions that pass unseen",
    ),
    (
        "no request line received",
        "empty lines before a request, and an end among them (RFC 9112 §2.2)",
    ),
    (
        "Missing mandatory Host",
        "a watchdog behind a gateway needs no host",
    ),
    (
        "Found multiple Host",
        "an HTTP/1.0 client's second host is refused by us as well, and counts for nothing where it is not",
    ),
    (
        "illegal chunk header",
        "blanks before an extension (RFC 9112 §7.1.1), and leading zeros beyond h11's twenty digits",
    ),
    (
        "illegal header line",
        "names and values as RFC 9110 §5.5 has them",
    ),
    (
        "illegal status line",
        "an answer's reason may be missing or have other bytes",
    ),
    (
        "Receive buffer too long",
        "h11's limit is its user's, not a reading",
    ),
    ("Too many headers", "the same"),
    (
        "bad Content-Length",
        "the coding overrides a length (RFC 9112 §6.3), whatever that is",
    ),
    (
        "Only Transfer-Encoding: chunked is supported",
        "a watchdog answers 400 to such a request and goes on behind it; of interim answers the fields do not count",
    ),
    ("multiple Transfer-Encoding headers", "the same"),
    (
        "conflicting Content-Length",
        "h11 holds trailers to the rules of a head",
    ),
    (
        "no response line received",
        "hyper skips empty lines before a watchdog's answer",
    ),
];

/// Messages that h11 takes and we do not, by our word.
const REFUSED_BY_US: &Allowed = &[
    (
        "400 HTTP/1.0 has no transfer codings",
        "RFC 9112 §6.1 allows to refuse them",
    ),
    ("400 a line of the request", "a CR without its LF"),
    (
        "400 the Content-Length is none",
        "a list of equal lengths, too",
    ),
    (
        "400 the name of a header field",
        "folded lines (RFC 9112 §5.2)",
    ),
    ("400 the value of a header field", "control characters"),
    (
        "400 the request",
        "a target that is none, or a body that is framed loosely",
    ),
    (
        "400 this is not a request",
        "h11 allows more blanks and versions",
    ),
    ("400 the only versions", "the same"),
    (
        "400 the head of the request",
        "it ends where h11 has seen its end already",
    ),
    ("400 send one Host", "a host that is none"),
    ("400 bad function name", "a changed path"),
    ("400 name ", "a changed path"),
    ("404 ", "a changed path"),
    ("405 ", "a changed method or path"),
    ("408 ", "the rest is waited for"),
    ("501 ", "a transfer coding"),
    (
        "400",
        "hyper, in the watchdog, has the same words for all of these",
    ),
    (
        "500 the function broke off",
        "an answer that is framed loosely, read by the watchdog",
    ),
    (
        "502 function ... gave no proper answer",
        "the same, read by the gateway",
    ),
    ("an answer that breaks off", "the same, behind its head"),
    ("silence", "the rest is waited for"),
    (
        "200 ",
        "hyper, in the watchdog, reads trailers on to a whole line end, the next request among them",
    ),
];

#[test]
fn no_message_is_read_in_another_meaning_than_another_reader_s() {
    let asked = std::env::var("DIFFERENTIAL_CASES").ok();
    compare(asked.map_or(CASES, |cases| cases.parse().unwrap()));
}

#[test]
#[ignore = "minutes: make soak"]
fn no_message_of_a_hundred_thousand_is_read_in_another_meaning() {
    compare(25_000);
}

fn compare(cases: usize) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/h11");
    if !std::path::Path::new(folder).join("h11").exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "{folder} is missing, and in CI this must run"
        );
        eprintln!(
            "SKIPPED: {folder} is missing (.ci/python-tools install), so nothing was compared"
        );
        return;
    }
    let seed = std::env::var("DIFFERENTIAL_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("DIFFERENTIAL_SEED={seed}");
    let world = World::new(SIDE_BY_SIDE);
    let mut differences = BTreeMap::new();
    let mut wrong = Vec::new();
    for program in [Program::Gateway, Program::Watchdog] {
        for is_answer in [false, true] {
            let mut random = fastrand::Rng::with_seed(seed);
            let texts: Vec<_> = (0..cases)
                .map(|case| {
                    let to = program.path(case % SIDE_BY_SIDE, case);
                    mutate::case(&mut random, &to, is_answer)
                })
                .collect();
            let kind = if is_answer { b'A' } else { b'Q' };
            let read = second_reader(folder, kind, &texts);
            let ours = play(&world, program, is_answer, &texts);
            for (case, ((text, theirs), ours)) in texts.iter().zip(&read).zip(&ours).enumerate() {
                let about = format!("{program:?}, {}", char::from(kind));
                match difference(program, case, is_answer, theirs, ours) {
                    Ok(None) => {}
                    Ok(Some(word)) => *differences.entry((about, word)).or_insert(0) += 1,
                    Err(why) => wrong.push(format!(
                        "{about}: {why}\n  sent {}\n  h11 {theirs}\n  ours {ours:?}",
                        text.escape_ascii()
                    )),
                }
            }
        }
    }
    for ((about, word), count) in &differences {
        println!("{count:6} {about}: {word}");
    }
    assert!(
        wrong.is_empty(),
        "{} of them:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}

/// What h11 makes of these messages.
fn second_reader(folder: &str, kind: u8, texts: &[Vec<u8>]) -> Vec<Value> {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/local/differential/second_reader.py"
    );
    let mut child = Command::new("python3")
        .arg(script)
        .env("PYTHONPATH", folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut input = Vec::new();
    for text in texts {
        input.push(kind);
        input.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        input.extend(text);
    }
    std::thread::spawn(move || stdin.write_all(&input));
    let mut output = String::new();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success());
    let read: Vec<_> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(read.len(), texts.len());
    read
}

/// What one of our programs makes of them: the messages that came out on its other side.
fn play(world: &World, program: Program, is_answer: bool, texts: &[Vec<u8>]) -> Vec<Outcome> {
    let seen = Mutex::new(vec![Outcome::default(); texts.len()]);
    std::thread::scope(|scope| {
        for lane in 0..SIDE_BY_SIDE {
            let seen = &seen;
            scope.spawn(move || {
                for case in (lane..texts.len()).step_by(SIDE_BY_SIDE) {
                    let text = &texts[case];
                    let outcome = if is_answer {
                        world.answered(program, lane, text)
                    } else {
                        world.asked(program, lane, case, text)
                    };
                    seen.lock().unwrap()[case] = outcome;
                }
            });
        }
    });
    seen.into_inner().unwrap()
}

/// Holds what came out against what h11 has read: nothing may come out that h11 has not read so. What h11 refuses is allowed if the
/// table has its word.
fn difference(
    program: Program,
    case: usize,
    is_answer: bool,
    theirs: &Value,
    ours: &Outcome,
) -> Result<Option<String>, String> {
    let end = theirs["end"].as_str().unwrap();
    let mut read = theirs["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|message| {
            let text = |at: usize| message["first"][at].as_str().unwrap_or_default();
            let is_whole = message["whole"].as_bool().unwrap();
            is_whole.then(|| Message {
                first: if is_answer {
                    text(0).to_owned()
                } else {
                    format!(
                        "{} {}",
                        text(0),
                        program.passed(case % SIDE_BY_SIDE, text(1))
                    )
                },
                id: message["id"].as_array().map(|ids| {
                    let ids = ids.iter().map(|id| id.as_str().unwrap());
                    ids.collect::<Vec<_>>().join(",")
                }),
                body: message["body"].as_str().unwrap().to_owned(),
            })
        });
    for one in &ours.messages {
        // Those before it were refused by us alone.
        if read.any(|theirs| theirs == *one) {
            continue;
        }
        let Some(word) = end.strip_prefix("refused: ") else {
            return Err(format!("h11 has not read {one:?}"));
        };
        let known = TAKEN_BY_US
            .iter()
            .find(|(known, _)| word.starts_with(known));
        return match known {
            Some((known, _)) => Ok(Some(format!("h11 refuses, we take: {known}"))),
            None => Err(format!("h11 refuses {one:?}: {word}")),
        };
    }
    let left = read.count();
    if left == 0 {
        return Ok(None);
    }
    let known = REFUSED_BY_US
        .iter()
        .find(|(known, _)| ours.refusal.starts_with(known));
    match known {
        Some((known, _)) => Ok(Some(format!("h11 takes, we refuse: {known}"))),
        None => Err(format!("h11 takes {left} more: {}", ours.refusal)),
    }
}
