//! What stands in a request's target reaches its function byte for byte, whichever characters clients leave unescaped.

use std::io::Write;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;

use crate::http2::{connect, run, whole};
use crate::support::client::raw;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

/// A server that answers with the head that it was sent, escaped as Rust does it.
fn mirror() -> Upstream {
    Upstream::new(|stream, head| {
        let line = head.lines().next().unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{line}");
        stream.write_all(answer.as_bytes()).unwrap();
    })
}

#[test]
fn raw_characters_in_a_target_reach_the_function_as_they_came() {
    let mirror = mirror();
    let own = "    labels:\n      skep.route.path: /shop\n";
    let functions = mirror.entry("echo", "") + &mirror.entry("shop", own);
    let gateway = Gateway::of(&functions);
    let rests: [&[u8]; 9] = [
        b"?q={\"a\":1}",
        b"/<a>/`x`|^\\?<>`|^\\\"",
        b"/caf\xc3\xa9?\xc3\xa9",
        b"/?[x]={y}&a=<b>",
        b"/a?b?c/d%zz%",
        b"//x/../y/./z",
        b"/%2e%2e/%2f%5C",
        b"?\"",
        b"",
    ];
    for prefix in ["/function/echo", "/shop", "http://t/function/echo"] {
        for rest in rests {
            let target = [prefix.as_bytes(), rest].concat();
            let request = [
                b"GET ",
                &target[..],
                b" HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
            ];
            let answer = raw(gateway.address, &request.concat()).unwrap();
            let slash: &[u8] = if rest.starts_with(b"/") { b"" } else { b"/" };
            let line = [b"GET ", slash, rest, b" HTTP/1.1"].concat();
            let text = String::from_utf8_lossy(&target).into_owned();
            assert_eq!(answer.status, 200, "{text}: {answer:?}");
            assert_eq!(answer.text(), String::from_utf8(line).unwrap(), "{text}");
        }
    }
}

#[test]
fn bytes_that_are_not_utf_8_reach_the_function_as_they_came() {
    // The watchdog's own reading of them is not asked here.
    let (told, heard) = std::sync::mpsc::channel();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n")
                && matches!(std::io::Read::read(&mut stream, &mut byte), Ok(1))
            {
                head.push(byte[0]);
            }
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            told.send(head).unwrap();
        }
    });
    let entry = format!("  echo:\n    annotations:\n      skep.upstream: http://{address}\n");
    let gateway = Gateway::of(&entry);
    let rest = b"/\xe9\xff\x80?x=\xfe\"";
    let request = [
        b"GET /function/echo",
        &rest[..],
        b" HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
    ];
    assert_eq!(raw(gateway.address, &request.concat()).unwrap().status, 200);
    let line = [b"GET ", &rest[..], b" HTTP/1.1\r\n"].concat();
    let is_line = |head: Vec<u8>| head.starts_with(&line);
    // The gateway's first contact is among them.
    let mut heads = heard.iter();
    assert!(heads.any(is_line));
}

#[test]
fn controls_blanks_and_fragments_in_a_target_are_refused() {
    let mirror = mirror();
    let gateway = Gateway::of(&mirror.entry("echo", ""));
    for bad in [
        &b"?a\x00"[..],
        b"?a\x01",
        b"?a\t",
        b"?a b",
        b"?a\x0b",
        b"?a\x1f",
        b"?a\x7f",
        b"/x#y",
        b"#",
    ] {
        let head = b" HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
        let request = [b"GET /function/echo", bad, head].concat();
        let answer = raw(gateway.address, &request).unwrap();
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(&request));
    }
    assert!(mirror.saw_nothing());
}

#[test]
fn raw_characters_come_over_http_2_as_well() {
    let mirror = mirror();
    let gateway = Gateway::of(&mirror.entry("echo", ""));
    let rest = "/{x}/a|b^c\\d/é?q={a:1}|[x]`^\\";
    let (status, text, _) = run(async {
        let mut connection = connect::<Full<Bytes>>(gateway.address).await;
        let request = Request::get(format!("http://t/function/echo{rest}"));
        let request = request.body(Full::default()).unwrap();
        whole(connection.send_request(request).await.unwrap()).await
    });
    assert_eq!((status, text), (200, format!("GET {rest} HTTP/1.1")));
}

#[test]
fn cookies_are_one_field_for_the_function() {
    let mirror = mirror();
    let gateway = Gateway::of(&mirror.entry("echo", ""));
    let request = b"GET /function/echo HTTP/1.1\r\nHost: t\r\nCookie: a=1\r\nX: y\r\nCookie: b=2; c=3\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(gateway.address, request).unwrap().status, 200);
    let head = mirror.saw();
    assert!(head.contains("cookie: a=1; b=2; c=3\r\n"), "{head}");
    assert_eq!(head.matches("cookie").count(), 1, "{head}");
}

#[test]
fn lists_of_fields_have_so_many_members_at_most() {
    let mirror = mirror();
    let gateway = Gateway::of(&mirror.entry("echo", ""));
    for (name, count, status) in [
        ("Connection", 30_000, 431),
        ("Trailer", 20_000, 431),
        ("TE", 300, 431),
        ("Connection", 100, 200),
    ] {
        let list = "a,".repeat(count);
        let request = format!(
            "GET /function/echo HTTP/1.1\r\nHost: t\r\n{name}: {list}\r\nConnection: close\r\n\r\n"
        );
        let answer = raw(gateway.address, request.as_bytes()).unwrap();
        assert_eq!(answer.status, status, "{count} members in {name}");
    }
}
