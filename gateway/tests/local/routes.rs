//! Hosts and paths that are functions' own: whose a request is, what its function sees, and who is refused.

use serde_json::json;

use crate::support::client::{Answer, get, post, raw, request};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

/// A function that says its name and the path that it was called with.
fn says(name: &str, labels: &[(&str, &str)]) -> String {
    let mut entry = format!(
        "  {name}:\n    fprocess: sh -c 'echo {name} $Http_Path'\n    labels:\n      team: x\n"
    );
    for (label, value) in labels {
        entry += &format!("      skep.route.{label}: \"{value}\"\n");
    }
    entry
}

/// `method target` as it stands, with this `Host`.
fn ask(gateway: &Gateway, method: &str, host: &str, target: &str) -> Answer {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nX-Function: other\r\n\r\n"
    );
    raw(gateway.address, head.as_bytes()).unwrap()
}

/// What the function said, or the status of whoever else answered.
fn said(gateway: &Gateway, host: &str, target: &str) -> String {
    let answer = ask(gateway, "GET", host, target);
    match answer.status {
        200 if answer.header("x-openfaas-internal").is_none() => answer.text().trim().to_owned(),
        status => status.to_string(),
    }
}

fn route(gateway: &Gateway, name: &str) -> serde_json::Value {
    get(gateway.address, &format!("/system/function/{name}")).json()["route"].clone()
}

#[test]
fn a_host_and_a_path_lead_to_their_function() {
    let gateway = Gateway::of(
        &[
            says("shop", &[("host", "shop.example")]),
            says("cart", &[("host", "shop.example"), ("path", "/cart")]),
            says(
                "api",
                &[("host", "api.example"), ("path", "/v1"), ("strip", "false")],
            ),
            says("blog", &[("path", "/blog")]),
            says("feed", &[("path", "/blog/feed"), ("strip", "false")]),
            says("other", &[]),
        ]
        .concat(),
    );
    for (host, target, expected) in [
        ("shop.example", "/", "shop /"),
        ("SHOP.example.:8080", "/a/b?q=1", "shop /a/b"),
        ("shop.example", "/cart", "cart /"),
        ("shop.example", "/cart/7", "cart /7"),
        ("shop.example", "/carts", "shop /carts"),
        ("test", "http://shop.example/cart/8", "cart /8"),
        ("shop.example", "http://test/blog/9", "blog /9"),
        ("api.example", "/v1/x", "api /v1/x"),
        ("test", "/blog", "blog /"),
        ("test", "/blog/feed/1", "feed /blog/feed/1"),
        // The gateway's own paths on a host that is a function's own are that function's.
        ("shop.example", "/function/other", "shop /function/other"),
        (
            "shop.example",
            "/system/functions",
            "shop /system/functions",
        ),
        ("shop.example", "/healthz", "shop /healthz"),
        ("shop.example", "/metrics", "shop /metrics"),
        ("shop.example", "/blog", "shop /blog"),
        // Or nobody's.
        ("api.example", "/", "404"),
        ("api.example", "/function/other", "404"),
        ("api.example", "/system/functions", "404"),
        ("api.example", "/healthz", "404"),
        ("api.example", "/blog", "404"),
        // And everywhere else they stay what they were.
        ("test", "/", "other /"),
        ("test", "/function/other/x", "other /x"),
        ("test", "/function/shop/cart", "shop /cart"),
        ("shop.example.evil", "/", "other /"),
    ] {
        assert_eq!(said(&gateway, host, target), expected, "{host} {target}");
    }
    let nothing = ask(&gateway, "POST", "api.example", "/v2");
    assert!(
        nothing
            .text()
            .starts_with("no function has this path on this host (call "),
        "{}",
        nothing.text()
    );
    assert_eq!(
        ask(&gateway, "CONNECT", "shop.example", "shop.example:80").status,
        405
    );
    assert_eq!(get(gateway.address, "/healthz").status, 200);
    assert_eq!(
        route(&gateway, "cart"),
        json!({ "host": "shop.example", "path": "/cart", "strip": true, "state": "active" })
    );
    assert_eq!(route(&gateway, "other"), json!(null));
    let calls = "gateway_function_invocation_total{code=\"200\",function_name=\"cart\"}";
    assert_eq!(gateway.metric(calls), 3.0, "counted by the function's name");
}

#[test]
fn an_error_on_a_functions_own_route_names_the_function() {
    let gateway = Gateway::of(&says("shop", &[("host", "shop.example")]));
    let scaled = post(
        gateway.address,
        "/system/scale-function/shop",
        r#"{"replicas": 0}"#,
    );
    assert_eq!(scaled.status, 202, "{}", scaled.text());
    let answer = ask(&gateway, "GET", "shop.example", "/x");
    assert_eq!(answer.status, 503);
    assert!(
        answer
            .text()
            .starts_with("function 'shop' has no running replica"),
        "{}",
        answer.text()
    );
}

#[test]
fn of_two_who_want_the_same_one_is_refused_and_told_so() {
    let wants = |name, path| says(name, &[("host", "shop.example"), ("path", path)]);
    let gateway = Gateway::of(&[wants("b", "/x"), wants("a", "/x")].concat());
    eventually("a has it", || said(&gateway, "shop.example", "/x") == "a /");
    assert_eq!(
        route(&gateway, "b"),
        json!({
            "host": "shop.example", "path": "/x", "strip": true, "state": "taken",
            "reason": "shop.example/x belongs to function 'a': write another skep.route.host or skep.route.path",
        })
    );
    assert_eq!(gateway.metric("skep_route_clashes"), 1.0);
    assert_eq!(
        get(gateway.address, "/function/b").text(),
        "b /\n",
        "it can be called by its name"
    );
    let lines = || gateway.log().matches("route refused").count();
    gateway.logs("route refused");
    assert_eq!(lines(), 1);
    // Another listing is no change.
    post(
        gateway.address,
        "/system/scale-function/b",
        r#"{"replicas": 2}"#,
    );
    assert_eq!(lines(), 1);

    gateway.change(&[wants("b", "/x"), wants("a", "/y")].concat());
    eventually("b has it now", || {
        said(&gateway, "shop.example", "/x") == "b /"
    });
    assert_eq!(said(&gateway, "shop.example", "/y"), "a /");
    assert_eq!(gateway.metric("skep_route_clashes"), 0.0);
    assert_eq!(route(&gateway, "b")["state"], "active");
    gateway.change(&wants("c", "/z"));
    eventually("they are gone", || {
        said(&gateway, "shop.example", "/z") == "c /"
    });
    assert_eq!(said(&gateway, "shop.example", "/x"), "404");
}

#[test]
fn a_broken_label_leaves_the_function_without_a_route_and_says_which() {
    let gateway = Gateway::of(
        &[
            says("sys", &[("path", "/system/functions")]),
            says("home", &[("host", "localhost")]),
            says("wild", &[("host", "*.example")]),
        ]
        .concat(),
    );
    for (name, label) in [
        ("sys", "skep.route.path"),
        ("home", "skep.route.host"),
        ("wild", "skep.route.host"),
    ] {
        let told = route(&gateway, name);
        assert_eq!(told["state"], "invalid", "{name}");
        let reason = told["reason"].as_str().unwrap().to_owned();
        assert!(reason.starts_with(label), "{reason}");
        assert_eq!(
            get(gateway.address, &format!("/function/{name}")).status,
            200
        );
        gateway.logs(label);
    }
    assert!(get(gateway.address, "/system/functions").json().is_array());
    assert_eq!(
        said(&gateway, "localhost", "/system/info"),
        said(&gateway, "test", "/system/info")
    );
}

#[test]
fn a_deployment_with_a_broken_or_a_taken_route_is_refused() {
    let gateway = Gateway::of(&says("shop", &[("host", "shop.example")]));
    let deploy = |method: &str, name: &str, label: &str, value: &str| {
        let body = json!({ "service": name, "image": "x", "labels": { label: value } });
        request(
            gateway.address,
            method,
            "/system/functions",
            &[],
            body.to_string().as_bytes(),
        )
    };
    for method in ["POST", "PUT"] {
        for (label, value) in [
            ("skep.route.host", "no host"),
            ("skep.route.path", "/function/x"),
            ("skep.route.strip", "perhaps"),
        ] {
            let answer = deploy(method, "new", label, value);
            let begins = format!("labels.{label}: ");
            assert!(
                answer.status == 400 && answer.text().starts_with(&begins),
                "{}",
                answer.text()
            );
        }
        let taken = deploy(method, "new", "skep.route.host", "Shop.Example");
        assert_eq!(taken.status, 409, "{}", taken.text());
        assert!(
            taken
                .text()
                .starts_with("shop.example/ belongs to function 'shop'"),
            "{}",
            taken.text()
        );
    }
    let own = deploy("PUT", "shop", "skep.route.host", "shop.example");
    assert_eq!(own.status, 501, "its own is no clash: {}", own.text());
}

/// Pieces that somebody between a caller and a function may decode, fold, drop or cut at.
const ODD: &[&str] = &[
    "%2f",
    "%2F",
    "%5c",
    "\\",
    ";x",
    ";",
    "%3b",
    ".",
    "..",
    "%2e",
    "%2e%2e",
    "%252e",
    "%00",
    "%20",
    "%09",
    "~",
    "%7e",
    "%",
    "%zz",
    "S",
    "hop",
    "%73",
    "&",
    "=",
    ":",
    "@",
    "!",
    "$",
    "'",
    "*",
    "+",
    ",",
    "%c0%af",
    "%ef%bc%8f",
];

/// Spellings around `/shop`, each with whether it is at the path or below it as it stands.
fn spellings() -> Vec<(String, bool)> {
    let mut all = Vec::new();
    for odd in ODD {
        for end in ["", "/", "/x"] {
            all.push((format!("/shop{odd}{end}"), false));
            all.push((format!("/{odd}shop{end}"), false));
            all.push((format!("/{odd}/shop{end}"), false));
            all.push((format!("/shop/{odd}{end}"), true));
        }
    }
    for (before, is_below) in [
        ("/SHOP", false),
        ("/Shop/", false),
        ("//shop", false),
        ("///shop/", false),
        ("/./shop", false),
        ("/x/../shop", false),
        ("/shopping", false),
        ("/sho", false),
        ("/s/hop", false),
        ("/shop", true),
        ("/shop/", true),
        ("/shop//", true),
        ("/shop//shop", true),
        ("/shop/../system/functions", true),
        ("/shop/../../function/trap", true),
        ("/shop/%2e%2e/system/info", true),
        ("/shop/..;/healthz", true),
    ] {
        all.push((before.to_owned(), is_below));
        all.push((format!("{before}?/shop/../system"), is_below));
    }
    all
}

#[test]
fn no_spelling_of_a_path_leads_elsewhere() {
    // Tells the request line, so that every byte of the target is seen.
    let tells = |stream: &mut std::net::TcpStream, head: &str| {
        let line = head.lines().next().unwrap_or_default();
        let text = format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{line}",
            line.len()
        );
        let _ = std::io::Write::write_all(stream, text.as_bytes());
    };
    let upstream = Upstream::new(tells);
    let labels = |labels: &str| format!("    labels:\n{labels}");
    let gateway = Gateway::of(
        &[
            upstream.entry("shop", &labels("      skep.route.path: /shop\n      skep.route.strip: false")),
            upstream.entry("own", &labels("      skep.route.host: own.example\n      skep.route.path: /shop\n      skep.route.strip: false")),
            says("trap", &[]),
        ]
        .concat(),
    );
    let all = spellings();
    assert!(all.len() >= 400, "{} spellings", all.len());
    let mut reached = 0;
    for (target, is_below) in &all {
        for host in ["test", "own.example"] {
            let head =
                format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let answer = raw(gateway.address, head.as_bytes()).unwrap();
            if *is_below && answer.status == 200 {
                let came = format!("GET {target} HTTP/1.1");
                assert_eq!(answer.text(), came, "{host}: as it came");
                reached += 1;
            } else {
                // What is no URI at all is a 400.
                let refused = if *is_below { 400..=400 } else { 400..=404 };
                assert!(
                    refused.contains(&answer.status),
                    "{host} {target}: {answer:?}"
                );
            }
        }
    }
    assert!(reached >= 200, "{reached} reached their function");
    assert_eq!(
        gateway.metric("gateway_function_invocation_started{function_name=\"trap\"}"),
        0.0
    );
}
