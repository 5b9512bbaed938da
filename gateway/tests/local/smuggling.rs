//! Messages that two readers could count differently, through the gateway and a real watchdog: both always see as many calls.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::client::{get, post, raw};
use crate::support::eventually;
use crate::support::gateway::{Folder, Gateway};
use crate::support::upstream::Upstream;

/// How many cases are under way at once.
const SIDE_BY_SIDE: usize = 8;
/// How long a connection may be silent before its case is over: it waits for bytes that never come.
const SILENCE: Duration = Duration::from_millis(700);

const LENGTH_VALUES: &[&str] = &[
    "0",
    "5",
    "05",
    "+5",
    "-5",
    "5,5",
    "5, 5",
    "5,6",
    " 5",
    "5 ",
    "\t5",
    "0x5",
    "5;a",
    "5.0",
    "5e0",
    "",
    "x",
    "5 5",
    "1_0",
    "18446744073709551616",
    "99999999999999999999999",
    "\u{665}",
];
const CODING_VALUES: &[&str] = &[
    "chunked",
    "Chunked",
    "CHUNKED",
    " chunked",
    "chunked ",
    "\tchunked",
    "chunked\t",
    "chunked,",
    ",chunked",
    "chunked, chunked",
    "chunked,identity",
    "identity",
    "identity, chunked",
    "gzip",
    "gzip, chunked",
    "chunked, gzip",
    "\"chunked\"",
    "chunked;q=1",
    "xchunked",
    "chunkedx",
    "chunk",
    "\u{b}chunked",
    "chunked\u{c}",
    "",
    "cow, chunked",
    "chunked\0",
    "chu nked",
    "'chunked'",
];
const CODING_NAMES: &[&str] = &[
    "Transfer-Encoding: ",
    "transfer-encoding: ",
    "TRANSFER-ENCODING:",
    "Transfer-Encoding : ",
    "Transfer_Encoding: ",
    " Transfer-Encoding: ",
    "\tTransfer-Encoding: ",
    "X: y\nTransfer-Encoding: ",
    "X: y\rTransfer-Encoding: ",
    "X: y\r\n\tTransfer-Encoding: ",
    "Transfer-Encoding:\r\n ",
    "Transfer\0-Encoding: ",
    "Transfer Encoding: ",
];
const CHUNK_SIZES: &[&str] = &[
    "5",
    "05",
    "0000000000000005",
    "5;a=b",
    "5 ;a=b",
    "5; a",
    "5;a=\"b\r\n0\r\n\r\n\"",
    "5\t",
    "5 ",
    " 5",
    "+5",
    "-5",
    "0x5",
    "5h",
    "5,5",
    "",
    "g",
    "ffffffffffffffff5",
    "10000000000000005",
    "5;\n0",
    "5;\r0",
    "5\0",
    "\u{665}",
    "5;a\0b",
    "5\r",
    "5_",
];
const LINE_ENDS: &[&str] = &["\r\n", "\n", "\r", "\r\r\n", "\n\r\n", "\0\r\n", " \r\n"];

/// Five bytes that no message can begin with: whoever leaves them over finds no method in them.
const BODY: &str = "(hi.)";

/// What is hidden behind a message: a call of another function, by whoever takes it for a message of its own.
fn hidden(number: usize) -> String {
    format!("POST /function/trap/{number} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
}

fn case(number: usize, fields: &str, body: &str) -> Vec<u8> {
    let head = format!("POST /function/seen/{number} HTTP/1.1\r\nHost: t\r\n");
    let end = "GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    [&head, fields, "\r\n", body, &hidden(number), end]
        .concat()
        .into_bytes()
}

/// Every case once: its fields and the beginning of its body.
fn table() -> Vec<(String, String)> {
    let mut cases = Vec::new();
    let mut add = |fields: String, body: &str| cases.push((fields, body.to_owned()));
    for length in LENGTH_VALUES {
        add(format!("Content-Length: {length}\r\n"), BODY);
        add(
            format!("Content-Length: 5\r\nContent-Length: {length}\r\n"),
            BODY,
        );
        add(
            format!("Content-Length: {length}\r\nContent-Length: 5\r\n"),
            BODY,
        );
        add(format!("Content-Length : {length}\r\n"), BODY);
        add(
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
            "0\r\n\r\n",
        );
        add(
            format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
            "0\r\n\r\n",
        );
    }
    for name in CODING_NAMES {
        for value in CODING_VALUES {
            add(format!("{name}{value}\r\n"), "0\r\n\r\n");
            add(
                format!("Content-Length: 5\r\n{name}{value}\r\n"),
                "0\r\n\r\n",
            );
        }
    }
    for value in CODING_VALUES {
        let twice = format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: {value}\r\n");
        add(twice, "0\r\n\r\n");
    }
    let chunked = || "Transfer-Encoding: chunked\r\n".to_owned();
    for size in CHUNK_SIZES {
        for end in LINE_ENDS {
            add(chunked(), &format!("{size}{end}hello{end}0{end}{end}"));
        }
        add(chunked(), &format!("{size}\r\nhell\r\n0\r\n\r\n"));
        add(chunked(), &format!("{size}\r\nhello!\r\n0\r\n\r\n"));
        add(chunked(), &format!("5\r\nhello\r\n{size}\r\n\r\n"));
    }
    for trailer in [
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "X",
        "X : y",
        " X: y",
        "Host: x",
        "X: y\n",
        "\0: x",
    ] {
        add(chunked(), &format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n"));
    }
    for fields in [
        "Host: u\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nConnection: Content-Length\r\n",
        "Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n",
        "Content-Length: 5\r\nExpect: 100-continue\r\n",
        "Content-Length: 5\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n",
        "Content-Length: 5\r\nUpgrade: x\r\nConnection: Upgrade\r\n",
        "Content-Length:5\n",
        "X: \r\n\r\nContent-Length: 5\r\n",
        "X-Fold: a\r\n b\r\nContent-Length: 5\r\n",
        "Content-Length: \r\n 5\r\n",
        "X\0: y\r\nContent-Length: 5\r\n",
        "X: y\0z\r\nContent-Length: 5\r\n",
        ": y\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTE: chunked\r\n",
    ] {
        add(fields.to_owned(), BODY);
    }
    cases
}

/// Sends a case, and reads until the gateway closes or waits for more.
fn play(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let mut all = Vec::new();
    if stream.write_all(bytes).is_ok() {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            all.extend_from_slice(&buffer[..read]);
        }
    }
    all
}

#[test]
fn gateway_and_watchdog_never_disagree_on_how_many_messages_there_are() {
    let folder = Folder::new();
    let file = |name: &str| folder.0.join(name).to_str().unwrap().to_owned();
    let function = |name: &str| {
        format!(
            "  {name}:\n    fprocess: sh -c 'echo \"$Http_Path\" >> {}; cat'\n",
            file(name)
        )
    };
    let functions = function("seen") + &function("trap") + "  cat:\n    fprocess: cat";
    // One worker, so that a connection to a function that is out of step meets the next call.
    let gateway = Gateway::with(&functions, &["--workers", "1", "--read-timeout", "5s"]);
    let cases = table();
    assert!(cases.len() >= 500, "{} cases", cases.len());
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some((fields, body)) = cases.get(number) else {
                        return;
                    };
                    let told = play(gateway.address, &case(number, fields, body));
                    let canary = format!("canary {number}");
                    let answer = post(gateway.address, "/function/cat", &canary);
                    if answer.status != 200 || answer.text() != canary {
                        let told = String::from_utf8_lossy(&told).into_owned();
                        wrong.lock().unwrap().push((fields, body, told, answer));
                    }
                }
            });
        }
    });
    assert!(
        wrong.lock().unwrap().is_empty(),
        "{:#?}",
        wrong.lock().unwrap()
    );
    for name in ["seen", "trap"] {
        eventually("all calls have ended", || {
            gateway.metric(&format!("skep_in_flight{{function_name=\"{name}\"}}")) < 0.5
        });
        let begun = gateway.metric(&format!(
            "gateway_function_invocation_started{{function_name=\"{name}\"}}"
        ));
        let mut ran: Vec<_> = std::fs::read_to_string(file(name))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect();
        let runs = ran.len();
        ran.sort();
        ran.dedup();
        assert_eq!(ran.len(), runs, "no message ran {name} twice");
        println!("{} cases: {name} begun {begun}, ran {runs}", cases.len());
        // A message whose body turned out to be broken may have begun at the gateway alone; a hidden one has no body.
        assert!(runs as f64 <= begun, "{name}: {begun} begun, {runs} ran");
        if name == "trap" {
            assert!(
                (runs as f64 - begun).abs() < f64::EPSILON,
                "{begun} begun, {runs} ran"
            );
        }
    }
}

#[test]
fn no_spelling_of_a_path_leads_to_another_function_or_to_the_management_api() {
    let ok = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nmine";
    let (mine, other) = (
        Upstream::says(ok),
        Upstream::says("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nother"),
    );
    let gateway = Gateway::of(&(mine.entry("mine", "") + &other.entry("other", "")));
    let ups = [
        "..",
        "%2e%2e",
        "%2E%2E",
        ".%2e",
        "%2e.",
        "%252e%252e",
        "..;",
        "..%00",
        "..\\",
        "%c0%ae%c0%ae",
        "%uff0e%uff0e",
        ". .",
        "...",
        "..%20",
        "%2e%2e;x=y",
    ];
    let slashes = ["/", "//", "%2f", "%2F", "%5c", "\\", "/./", "%252f", ";/"];
    let goals = ["system/functions", "function/other"];
    let mut paths = Vec::new();
    for up in ups {
        for slash in slashes {
            for goal in goals {
                paths.push(format!("/function/mine{slash}{up}{slash}{up}{slash}{goal}"));
                paths.push(format!("/function/{up}{slash}{goal}"));
            }
        }
    }
    for goal in ["/system/functions", "/function/other"] {
        let (first, rest) = goal.split_at(3);
        paths.extend([
            format!("/{goal}"),
            format!("/.{goal}"),
            format!("/%2e{goal}"),
            format!("/x/..{goal}"),
            goal.to_uppercase(),
            format!("{first}%{:02x}{}", rest.as_bytes()[0], &rest[1..]),
            format!("{first}%00{rest}"),
            format!("{goal}%00"),
            format!("{goal}%2f"),
            format!("{goal};x"),
            format!("{goal}%20"),
            format!("{goal}%23"),
            format!("\\{}", &goal[1..]),
        ]);
    }
    assert!(paths.len() >= 200, "{} paths", paths.len());
    for path in &paths {
        let request = format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        let answer = raw(gateway.address, request.as_bytes());
        let fine = answer.as_ref().is_none_or(|answer| {
            matches!(answer.status, 400 | 404) || answer.status == 200 && answer.text() == "mine"
        });
        assert!(fine, "{path}: {answer:?}");
    }
    assert!(other.saw_nothing(), "the other function was never called");
    assert_eq!(get(gateway.address, "/function/mine").text(), "mine");
}
