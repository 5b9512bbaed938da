//! `mode=static`: files of one directory.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as its test does"
)]

mod support;

use std::io::{Read, Write};
use std::os::unix::fs::symlink;

use support::client::Request;
use support::{Watchdog, bare};

/// A watchdog over a small site, with a secret beside it.
fn site() -> Watchdog {
    let builder = bare();
    let root = builder.directory().join("site");
    let secret = builder.directory().join("secret.txt");
    std::fs::create_dir_all(root.join("docs/sub")).unwrap();
    std::fs::create_dir_all(root.join("list/in ner")).unwrap();
    std::fs::write(root.join("index.html"), "<p>home").unwrap();
    std::fs::write(root.join("docs/index.html"), "<p>docs").unwrap();
    std::fs::write(root.join("list/a<b>.JSON"), "{}").unwrap();
    std::fs::write(root.join("ten"), "0123456789").unwrap();
    std::fs::write(root.join("empty.txt"), "").unwrap();
    std::fs::write(&secret, "secret").unwrap();
    symlink(&secret, root.join("out.txt")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("ten", root.join("inside.txt")).unwrap();
    let root = root.display().to_string();
    builder
        .env("mode", "static")
        .env("static_path", &root)
        .start()
}

#[test]
fn files_come_with_the_type_of_their_extension() {
    let watchdog = site();
    for (path, kind, text) in [
        ("/", "text/html; charset=utf-8", "<p>home"),
        ("/docs/", "text/html; charset=utf-8", "<p>docs"),
        ("/ten?x=1", "application/octet-stream", "0123456789"),
        ("/inside.txt", "application/octet-stream", "0123456789"),
        ("/list/a%3Cb%3E.JSON", "application/json", "{}"),
        ("/empty.txt", "text/plain; charset=utf-8", ""),
    ] {
        let answer = watchdog.get(path);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, text),
            "{path}"
        );
        assert_eq!(answer.header("content-type"), kind, "{path}");
        assert_eq!(answer.header("content-length"), text.len().to_string());
    }
    assert_eq!(watchdog.get("/_/health").status, 200);
    assert!(!watchdog.log().contains("warning"), "{}", watchdog.log());
}

#[test]
fn directories_are_listed_and_named_with_a_slash() {
    let watchdog = site();
    let text = watchdog.get("/list/").text();
    assert!(
        text.contains("<a href=\"./a%3Cb%3E.JSON\">a&lt;b&gt;.JSON</a>"),
        "{text}"
    );
    assert!(
        text.contains("<a href=\"./in%20ner/\">in ner/</a>"),
        "{text}"
    );
    let moved = watchdog.get("/list/in%20ner");
    assert_eq!(
        (moved.status, moved.header("location")),
        (301, "./in%20ner/")
    );
    assert_eq!(watchdog.get("//list").header("location"), "./list/");
    let asked = watchdog.get("/list?page=2&x=%20");
    assert_eq!(asked.header("location"), "./list/?page=2&x=%20");
}

#[test]
fn nothing_outside_of_the_root_is_served() {
    let watchdog = site();
    for path in [
        "/../secret.txt",
        "/docs/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/docs/..",
        "/out.txt",
        "/up/secret.txt",
        "/up/",
        "/no",
        "/ten/",
        "/ten/x",
    ] {
        let answer = watchdog.get(path);
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert!(!answer.text().contains("secret"), "{path}");
    }
    assert_eq!(watchdog.get("/ten%00").status, 400);
    let answer = watchdog.post("x");
    assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"));
}

#[test]
fn single_ranges_are_served() {
    let watchdog = site();
    let ask = |range: &str| watchdog.call(&Request::get("/ten").header("Range", range));
    for (range, text, told) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=3-5", "345", "bytes 3-5/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
    ] {
        let answer = ask(range);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (206, text),
            "{range}"
        );
        assert_eq!(answer.header("content-range"), told);
    }
    let answer = ask("bytes=10-");
    assert_eq!(
        (answer.status, answer.header("content-range")),
        (416, "bytes */10")
    );
    assert_eq!(ask("bytes=0-1,4-5").text(), "0123456789");
    let conditional = Request::get("/ten")
        .header("Range", "bytes=0-0")
        .header("If-Range", "x");
    assert_eq!(watchdog.call(&conditional).status, 200);
}

#[test]
fn head_has_the_length_and_no_body() {
    let watchdog = site();
    let mut stream = watchdog.connect();
    let request = Request::bare("HEAD", "/ten").header("Connection", "close");
    stream.write_all(&request.bytes()).unwrap();
    let mut head = String::new();
    stream.read_to_string(&mut head).unwrap();
    assert!(head.contains("\r\nContent-Length: 10\r\n"), "{head}");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn a_large_file_is_streamed_in_flat_memory_and_a_pipe_holds_nothing_up() {
    let watchdog = site();
    let large = std::fs::File::create(watchdog.file("site/large")).unwrap();
    large.set_len(100 << 20).unwrap();
    watchdog.get("/ten");
    let before = watchdog.resident();
    let mut stream = watchdog.connect();
    let request = Request::get("/large").header("Connection", "close");
    stream.write_all(&request.bytes()).unwrap();
    let (mut count, mut buffer) = (0, vec![0; 1 << 20]);
    while let some @ 1.. = stream.read(&mut buffer).unwrap() {
        count += some;
    }
    assert!(count > 100 << 20);
    assert!(watchdog.resident() < before + 8 * 1024);
    let made = std::process::Command::new("mkfifo")
        .arg(watchdog.file("site/pipe"))
        .status();
    assert!(made.unwrap().success());
    assert_eq!(watchdog.get("/pipe").status, 404);
}
