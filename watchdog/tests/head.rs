//! What a request's head becomes: environment, JSON, content type, refusals.

mod support;

use support::client::Request;
use support::{function, script};

#[test]
fn the_environment_describes_the_request() {
    let watchdog = function("env").env("OWN", "kept").start();
    let request = Request::post("/a%20b/c?x=1&y=%20", "12345").header("X-GitHub-Event", "push");
    let answer = watchdog.call(&request);
    let expected = [
        ("OWN", "kept"),
        ("Http_Method", "POST"),
        ("Http_Path", "/a b/c"),
        ("Http_Query", "x=1&y=%20"),
        ("Http_Host", "function"),
        ("Http_ContentLength", "5"),
        ("Http_Content_Length", "5"),
        ("Http_X_Github_Event", "push"),
    ];
    for (name, value) in expected {
        assert_eq!(
            answer.variable(name).as_deref(),
            Some(value),
            "{name} in {}",
            answer.text()
        );
    }
}

#[test]
fn chunked_and_absent_bodies_have_their_lengths() {
    let watchdog = script("env; cat > /dev/null").start();
    let chunked = Request::bare("POST", "/")
        .header("Transfer-Encoding", "chunked")
        .raw_body("1\r\nx\r\n0\r\n\r\n");
    let answer = watchdog.call(&chunked);
    assert_eq!(answer.variable("Http_ContentLength").as_deref(), Some("-1"));
    assert_eq!(
        answer.variable("Http_Transfer_Encoding").as_deref(),
        Some("chunked")
    );
    let answer = watchdog.get("/");
    assert_eq!(answer.variable("Http_Content_Length").as_deref(), Some("0"));
    assert_eq!(answer.variable("Http_Query"), None);
}

#[test]
fn dangerous_headers_do_not_reach_the_command() {
    let watchdog = function("env").start();
    let request = Request::get("/")
        .header("Proxy", "http://evil")
        .header("X_Forged", "evil")
        .header("Accept", "a")
        .header("Accept", "b");
    let answer = watchdog.call(&request);
    assert!(!answer.text().contains("evil"), "{}", answer.text());
    assert_eq!(answer.variable("Http_Accept").as_deref(), Some("a, b"));
}

#[test]
fn headers_of_the_connection_do_not_reach_the_command() {
    let request = Request::get("/")
        .header("Connection", "keep-alive, X-Named")
        .header("Connection", "TE")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "trailers")
        .header("Upgrade", "h2c")
        .header("X-Named", "1")
        .header("X-Other", "2");
    let answer = function("env").start().call(&request);
    let mut names: Vec<_> = answer
        .text()
        .lines()
        .filter(|line| line.starts_with("Http_"))
        .map(|line| line.split('=').next().unwrap_or_default().to_owned())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "Http_ContentLength",
            "Http_Content_Length",
            "Http_Host",
            "Http_Method",
            "Http_Path",
            "Http_X_Other"
        ]
    );
    let marshalled = function("cat").env("marshal_request", "true").start();
    let answer = marshalled.call(&request);
    assert_eq!(
        answer.text(),
        r#"{"header":{"X-Other":["2"]},"body":{"raw":""}}"#
    );
}

#[test]
fn two_hosts_are_one_too_many_and_none_is_not_missed() {
    for mode in ["classic", "streaming"] {
        let watchdog = function("env").env("mode", mode).start();
        let answer = watchdog.call(&Request::get("/").header("Host", "other"));
        assert_eq!(
            (answer.status, answer.header("x-openfaas-internal")),
            (400, "fwatchdog")
        );
        assert!(answer.text().contains("Host"), "{}", answer.text());
        let mut stream = watchdog.connect();
        std::io::Write::write_all(&mut stream, b"GET /p HTTP/1.0\r\n\r\n").unwrap();
        let answer = support::client::receive(&mut std::io::BufReader::new(stream));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.variable("Http_Host"), None);
    }
}

#[test]
fn no_header_can_bring_a_variable_or_a_line_of_its_own() {
    let watchdog = function("cat /proc/self/environ").start();
    let hostile: [&[u8]; 16] = [
        b"X-A: a\r\n Injected=evil",
        b"X-A: a\r\n\tInjected=evil",
        b"X-A: a\rInjected: evil",
        b"X-A: a\nProxy: evil",
        b"X-A: a\n Injected=evil",
        b"X-A: a\0Injected=evil",
        b"X-A\nInjected: evil",
        b"X-A\0: evil",
        b"X A: evil",
        b"X-A : evil",
        b": evil",
        b"PROXY: evil",
        b"pRoXy: evil",
        b"X_A: evil",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: evil",
        b"Content-Length: 1\r\nContent-Length: 2",
    ];
    for header in hostile {
        let shown = String::from_utf8_lossy(header);
        let mut stream = watchdog.connect();
        let head = [
            b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n",
            header,
            b"\r\n\r\n",
        ];
        std::io::Write::write_all(&mut stream, &head.concat()).unwrap();
        let answer = support::client::receive(&mut std::io::BufReader::new(stream));
        // A refusal is one line, and a run here has none.
        let text = answer.text().trim_end().to_owned();
        assert!(
            !text.contains("evil") && !text.contains('\n'),
            "{shown:?}: {text:?}"
        );
        // Either the request is refused as a whole, or the header is left out of it.
        assert!(
            answer.status == 400 || answer.status == 200 && text.contains("\0Http_Method=GET\0"),
            "{shown:?}: {answer:?}"
        );
    }
    assert_eq!(watchdog.get("/").status, 200);
}

#[test]
fn cgi_headers_can_be_turned_off() {
    let answer = function("env")
        .env("cgi_headers", "false")
        .start()
        .get("/p?q");
    assert!(!answer.text().contains("Http_"), "{}", answer.text());
}

#[test]
fn private_settings_do_not_reach_the_command() {
    let answer = function("env").env("skep_workers", "1").start().get("/");
    assert!(!answer.text().contains("skep_"), "{}", answer.text());
    assert!(answer.variable("SKEP_RUN").is_some());
}

#[test]
fn head_and_options_are_405() {
    let watchdog = function("cat").start();
    for method in ["HEAD", "OPTIONS", "TRACE", "BREW"] {
        let mut stream = watchdog.connect();
        std::io::Write::write_all(
            &mut stream,
            &Request::bare(method, "/")
                .header("Connection", "close")
                .bytes(),
        )
        .unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 405 "), "{method}: {text}");
        assert!(
            text.contains("X-Openfaas-Internal: fwatchdog"),
            "{method}: {text}"
        );
    }
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        assert_eq!(
            watchdog.call(&Request::bare(method, "/")).status,
            200,
            "{method}"
        );
    }
}

#[test]
fn a_nul_in_the_path_is_400_and_odd_paths_are_passed_on() {
    let watchdog = function("env").start();
    for path in ["/%00", "/a/b%00c?d"] {
        let answer = watchdog.get(path);
        assert_eq!(
            (answer.status, answer.header("x-openfaas-internal")),
            (400, "fwatchdog"),
            "{path}"
        );
    }
    for (path, seen) in [
        ("//a//b", "//a//b"),
        ("/a/../b", "/a/../b"),
        ("/%2e%2e/x", "/../x"),
        ("/%zz", "/%zz"),
    ] {
        assert_eq!(
            watchdog.get(path).variable("Http_Path").as_deref(),
            Some(seen),
            "{path}"
        );
    }
}

#[test]
fn a_head_that_no_environment_can_carry_is_431() {
    let watchdog = function("cat").start();
    let long = "x".repeat(200 * 1024);
    let answer = watchdog.call(&Request::get("/").header("X-Long", &long));
    assert_eq!(
        (answer.status, answer.header("x-openfaas-internal")),
        (431, "fwatchdog")
    );
    assert!(answer.text().contains("Http_X_Long"), "{}", answer.text());
    let without = function("cat").env("cgi_headers", "false").start();
    assert_eq!(
        without
            .call(&Request::get("/").header("X-Long", &long))
            .status,
        200
    );
    let huge = "x".repeat(2 * 1024 * 1024);
    assert_eq!(
        without
            .call(&Request::get("/").header("X-Huge", &huge))
            .status,
        431
    );
}

#[test]
fn the_content_type_is_safe_unless_configured() {
    let watchdog = function("cat").start();
    let kind = |sent: &str, body: &[u8]| {
        let answer = watchdog.call(&Request::post("/", body).header("Content-Type", sent));
        answer.header("content-type").to_owned()
    };
    assert_eq!(kind("application/json", b"{}"), "application/json");
    assert_eq!(kind("text/csv", b"a,b"), "text/csv");
    assert_eq!(kind("text/html", b"<script>"), "text/plain; charset=utf-8");
    assert_eq!(kind("image/svg+xml", b"<svg>"), "text/plain; charset=utf-8");
    assert_eq!(
        kind("application/octet-stream", b"\0\x01"),
        "application/octet-stream"
    );
    let fixed = function("cat").env("content_type", "text/html").start();
    assert_eq!(fixed.post("<p>").header("content-type"), "text/html");
}

#[test]
fn marshal_request_wraps_headers_and_body() {
    let watchdog = function("cat").env("marshal_request", "true").start();
    let answer = watchdog.call(
        &Request::post("/", "hello")
            .header("X-A", "1")
            .header("X-A", "\"2\""),
    );
    let expected =
        r#"{"header":{"Content-Length":["5"],"X-A":["1","\"2\""]},"body":{"raw":"aGVsbG8="}}"#;
    assert_eq!(answer.text(), expected);
    assert!(watchdog.get("/").text().ends_with(r#""body":{"raw":""}}"#));
    let large = watchdog.post(vec![b'a'; 300_000]);
    assert_eq!(
        large.body.len(),
        r#"{"header":{"Content-Length":["300000"]},"body":{"raw":""}}"#.len() + 400_000
    );
}

#[test]
fn debug_headers_prints_both_ways() {
    let watchdog = function("cat").env("debug_headers", "true").start();
    watchdog.call(&Request::get("/").header("X-A", "1").header("X-A", "2"));
    support::eventually("headers are printed", || {
        let output = watchdog.output();
        output.contains("[in] X-A=[1 2]\n") && output.contains("[out] X-Duration-Seconds=[")
    });
}

#[test]
fn a_coding_other_than_one_chunked_is_400() {
    let watchdog = script("cat").start();
    for codings in [
        &["gzip, chunked"][..],
        &["gzip", "chunked"],
        &["chunked", "chunked"],
    ] {
        let mut request = Request::bare("POST", "/").raw_body("1\r\nx\r\n0\r\n\r\n");
        for coding in codings {
            request = request.header("Transfer-Encoding", coding);
        }
        let answer = watchdog.call(&request);
        assert_eq!(answer.status, 400, "{codings:?}: {}", answer.text());
    }
}
