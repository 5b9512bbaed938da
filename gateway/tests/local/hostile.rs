//! Hostile input is normal input: 400, 404 or 431, nothing forwarded, and the next call is fine.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;

use crate::http2::{connect, run, whole};
use crate::support::client::{get, post, raw, request};
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn malformed_requests_are_refused_and_not_forwarded() {
    let upstream = Upstream::says(OK);
    let gateway = Gateway::of(&upstream.entry("echo", ""));
    let to = "/function/echo";
    let cases: &[String] = &[
        format!("GET {to}\r\n\r\n"),
        format!("GET {to} HTTP/9.9\r\nHost: t\r\n\r\n"),
        format!("G\0T {to} HTTP/1.1\r\nHost: t\r\n\r\n"),
        format!("GET {to} HTTP/1.1\r\nHost: t\r\nBad Name: x\r\n\r\n"),
        format!("GET {to} HTTP/1.1\r\nHost: t\r\nX: a\0b\r\n\r\n"),
        format!("POST {to} HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n"),
        format!(
            "POST {to} HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
        ),
        format!("POST {to} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n"),
        "GET / function/echo HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(),
        "\r\n\r\n\r\n\0\0\0\0".to_owned(),
    ];
    for case in cases {
        let answer = raw(gateway.address, case.as_bytes());
        assert!(
            answer
                .as_ref()
                .is_none_or(|answer| (400..=431).contains(&answer.status)),
            "{case:?}: {answer:?}"
        );
    }
    assert!(upstream.saw_nothing(), "nothing of it was forwarded");
    assert_eq!(get(gateway.address, to).text(), "ok");
}

#[test]
fn heads_that_are_too_large_are_431() {
    let upstream = Upstream::says(OK);
    let gateway = Gateway::of(&upstream.entry("echo", ""));
    let large = "x".repeat(64 << 10);
    assert_eq!(
        request(
            gateway.address,
            "GET",
            "/function/echo",
            &[("X-Large", &large)],
            b""
        )
        .status,
        431
    );
    let many: Vec<_> = (0..1000).map(|n| (format!("X-{n}"), "1")).collect();
    let many: Vec<_> = many
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    assert_eq!(
        request(gateway.address, "GET", "/function/echo", &many, b"").status,
        431
    );
    for (fields, status) in [(88, 200), (89, 431), (96, 431)] {
        // Host and Connection are two more.
        let answer = request(
            gateway.address,
            "GET",
            "/function/echo",
            &many[..fields],
            b"",
        );
        assert_eq!(answer.status, status, "{fields} fields");
        let says = answer.text().contains("more than 90 header fields");
        assert_eq!(says, status == 431, "{}", answer.text());
    }
    assert!(upstream.saw().contains("x-87: 1"));
    let path = format!("/function/echo/{}", "p".repeat(70 << 10));
    assert!([414, 431].contains(&get(gateway.address, &path).status));
    assert!(upstream.saw_nothing());
    let fits = "x".repeat(32 << 10);
    assert_eq!(
        request(
            gateway.address,
            "GET",
            "/function/echo",
            &[("X-Large", &fits)],
            b""
        )
        .status,
        200
    );
}

#[test]
fn names_that_are_no_names_reach_nobody() {
    let upstream = Upstream::says(OK);
    let gateway = Gateway::of(&upstream.entry("echo", ""));
    let long = "n".repeat(64);
    for name in [
        "..",
        "../echo",
        "%2e%2e/echo",
        "ec%68o",
        "echo%00",
        "echo%2f",
        "echo%5c",
        "echo;x",
        "echo%20",
        "%20echo",
        "",
        "/echo",
        &long,
    ] {
        let by_path = get(gateway.address, &format!("/function/{name}"));
        let by_header = request(gateway.address, "POST", "/", &[("X-Function", name)], b"x");
        for answer in [by_path, by_header] {
            let says = match answer.status {
                400 => "bad function name",
                404 => "no function has this name",
                other => panic!("{name}: {other}"),
            };
            assert!(answer.text().contains(says), "{name}: {}", answer.text());
        }
    }
    for (name, status) in [
        (".openfaas-fn", 404),
        ("", 404),
        ("a$b", 404),
        (long.as_str(), 404),
        ("..", 400),
        ("%2e%2e/echo", 400),
        ("echo%2Fx", 400),
        ("echo%5cx", 400),
        ("echo\\x", 400),
        ("echo%00", 400),
        ("echo%252f", 400),
    ] {
        let answer = get(gateway.address, &format!("/function/{name}"));
        assert_eq!(answer.status, status, "{name}");
    }
    for path in [
        "/function",
        "//function/echo",
        "/Function/echo",
        "/./function/echo",
        "/x/../function/echo",
        "/system/../function/echo",
        "/%66unction/echo",
    ] {
        assert_eq!(get(gateway.address, path).status, 404, "{path}");
    }
    assert!(upstream.saw_nothing());
}

#[test]
fn a_functions_rest_of_the_path_never_leads_to_the_management_api() {
    let upstream = Upstream::says(OK);
    let gateway = Gateway::of(&upstream.entry("echo", ""));
    for path in [
        "/function/echo/../../system/functions",
        "/function/echo/%2e%2e/%2e%2e/system/info",
        "/function/echo//system/functions",
    ] {
        assert_eq!(
            get(gateway.address, path).text(),
            "ok",
            "{path} is the function's"
        );
        assert!(
            upstream.saw().contains("system"),
            "the rest arrives as it came"
        );
    }
}

#[test]
fn absolute_targets_and_pipelined_requests_are_told_apart() {
    let upstream = Upstream::says(OK);
    let gateway = Gateway::of(&upstream.entry("echo", ""));
    let absolute = raw(
        gateway.address,
        b"GET http://other.example/function/echo HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
    )
    .unwrap();
    assert_eq!(absolute.text(), "ok");
    assert!(
        upstream
            .saw()
            .to_lowercase()
            .contains("host: other.example"),
        "RFC 9112 section 3.2.2"
    );
    let smuggled = b"POST /function/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /system/info HTTP/1.1\r\nHost: t\r\n\r\n";
    let answer = raw(gateway.address, smuggled).unwrap();
    assert!(
        !answer.text().contains("provider"),
        "what follows a doubtful message is not answered: {answer:?}"
    );
}

#[test]
fn a_message_that_two_readers_could_read_differently_goes_no_further() {
    let upstream = Upstream::says(OK);
    let gateway = Gateway::of(&upstream.entry("echo", ""));
    let to = "/function/echo";
    for (status, case) in [
        (400, format!("GET {to} HTTP/1.1\r\n\r\n")),
        (
            400,
            format!("GET {to} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ),
        (400, format!("GET {to} HTTP/1.1\r\nHost: a b/../c\r\n\r\n")),
        (400, format!("GET {to} HTTP/1.1\r\nHost: me@a\r\n\r\n")),
        (400, format!("GET {to} HTTP/1.1\r\nHost: a,b\r\n\r\n")),
        (400, format!("GET {to} HTTP/1.1\r\nHost: a:b\r\n\r\n")),
        (400, format!("GET {to} HTTP/1.1\r\nHost: a:65536\r\n\r\n")),
        (400, format!("GET {to} HTTP/1.1\r\nHost: :80\r\n\r\n")),
        (400, format!("GET {to} HTTP/1.1\r\nHost: a:1:2\r\n\r\n")),
        (400, format!("GET {to} HTTP/1.1\r\nHost: [::1\r\n\r\n")),
        (400, format!("GET {to} HTTP/1.1\r\nHost: [x]\r\n\r\n")),
        (400, format!("GET {to} HTTP/1.1\r\nHost: a%zz\r\n\r\n")),
        (
            400,
            format!("GET http://a,b{to} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
        (
            400,
            format!("GET http://a:99999{to} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
        (400, format!("GET http://{to} HTTP/1.1\r\nHost: a\r\n\r\n")),
        (400, format!("GET {to}#x HTTP/1.1\r\nHost: a\r\n\r\n")),
        (400, format!("GET {to}?x=1#y HTTP/1.1\r\nHost: a\r\n\r\n")),
        (
            400,
            format!("GET http://a{to}# HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
        (
            400,
            "GET function/echo HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nX-Function: echo\r\nX-Function: echo\r\n\r\n".to_owned(),
        ),
        (
            400,
            format!(
                "POST {to} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 0\r\nx\r\n0\r\n\r\n"
            ),
        ),
        (
            400,
            format!("GET http://me:pw@a{to} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
        (
            501,
            format!(
                "POST {to} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (405, format!("CONNECT {to} HTTP/1.1\r\nHost: a\r\n\r\n")),
    ] {
        let case = case.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        let answer = raw(gateway.address, case.as_bytes());
        let got = answer.as_ref().map(|answer| answer.status);
        assert!(
            got == Some(status) || status == 405 && got == Some(400),
            "{case:?}: {answer:?}"
        );
    }
    assert!(upstream.saw_nothing());
    for host in [
        "a:80",
        "a:65535",
        "[::1]:8080",
        "[fe80::1%25eth0]",
        "my_service",
        "a%2Db",
        "",
    ] {
        let case = format!("GET {to} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(
            raw(gateway.address, case.as_bytes()).unwrap().status,
            200,
            "{host}"
        );
    }
}

#[test]
fn five_hundred_random_names_make_one_series_at_most() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    assert_eq!(post(gateway.address, "/function/cat", "x").status, 200);
    let series = || {
        get(gateway.address, "/metrics")
            .text()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count()
    };
    get(gateway.address, "/function/nosuch");
    let before = series();
    for n in 0..500 {
        assert_eq!(
            get(gateway.address, &format!("/function/random{n}")).status,
            404
        );
    }
    assert!(
        series() <= before + 1,
        "{before} series became {}",
        series()
    );
    assert!(gateway.metric("skep_refused_total{reason=\"not_found\"}") >= 501.0);
}

#[test]
fn the_number_of_header_fields_is_bounded_over_http_2_too_and_can_be_raised() {
    let functions = "  cat:\n    fprocess: cat";
    let upstream = Upstream::says(OK);
    let many: Vec<_> = (0..300).map(|n| (format!("x-{n}"), "1")).collect();
    let fields = |count| {
        many[..count]
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
    };
    let gateway = Gateway::of(functions);
    let raised = Gateway::with(&upstream.entry("echo", ""), &["--max-headers", "250"]);
    for (to, path, count, status) in [
        (gateway.address, "/function/cat", 90, 200),
        (gateway.address, "/function/cat", 91, 431),
        (raised.address, "/function/echo", 240, 200),
        (raised.address, "/function/echo", 251, 431),
    ] {
        run(async {
            let mut request = Request::get(format!("http://{to}{path}"));
            for (name, value) in fields(count) {
                request = request.header(name, value);
            }
            let request = request.body(Full::<Bytes>::default()).unwrap();
            let response = connect(to).await.send_request(request).await.unwrap();
            let (told, text, _) = whole(response).await;
            assert_eq!(told, status, "{count}: {text}");
            assert_eq!(text.contains("header fields"), status == 431, "{text}");
        });
        let over_http_1: Vec<_> = fields(count - 2).collect();
        assert_eq!(request(to, "GET", path, &over_http_1, b"").status, status);
    }
}
