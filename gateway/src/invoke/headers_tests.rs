//! What crosses, and what does not.

use super::*;

fn head(fields: &[(&str, &str)]) -> HeaderMap {
    let pairs = fields.iter().map(|(name, value)| {
        (
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        )
    });
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name, value);
    }
    headers
}

fn origin() -> Origin {
    Origin::of([192, 0, 2, 7].into(), false, false)
}

fn out(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = head(fields);
    outbound(&mut headers, &origin(), &Ids::of(None));
    headers
}

#[test]
fn hop_by_hop_fields_and_those_named_in_connection_end_here() {
    let headers = out(&[
        ("connection", "keep-alive, X-Secret"),
        ("connection", "close"),
        ("x-secret", "1"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "websocket"),
        ("proxy-authorization", "x"),
        ("expect", "100-continue"),
        ("accept", "a"),
    ]);
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept"]);
}

#[test]
fn an_upgrade_passes_if_it_is_one_and_not_to_another_http() {
    let asks = |fields: &[(&str, &str)]| {
        let mut headers = head(fields);
        let (_, upgrades) = outbound(&mut headers, &origin(), &Ids::of(None));
        assert_eq!(upgrades, headers.contains_key(UPGRADE));
        assert_eq!(upgrades, headers.contains_key(CONNECTION));
        upgrades
    };
    let named = ("connection", "keep-alive, Upgrade");
    assert!(asks(&[named, ("upgrade", "websocket")]));
    assert!(asks(&[named, ("upgrade", "my-protocol/2, other")]));
    // What is no text is no protocol, and does not hide one.
    for refused in ["h2c", "websocket, H2C", "HTTP/2.0", "TLS/1.2", "", "h2c, é"] {
        assert!(!asks(&[named, ("upgrade", refused)]), "{refused}");
    }
    assert!(asks(&[
        ("connection", "é, upgrade"),
        ("upgrade", "websocket")
    ]));
    assert!(!asks(&[("upgrade", "websocket")]), "not named");
    assert!(!asks(&[named, ("upgrade", "a"), ("upgrade", "b")]));
}

#[test]
fn framing_cannot_be_removed_by_naming_it() {
    let headers = out(&[
        ("connection", "content-length, host, trailer"),
        ("content-length", "3"),
        ("host", "h"),
        ("trailer", "x-sum"),
    ]);
    assert_eq!(
        (
            &headers["content-length"],
            &headers["host"],
            &headers["trailer"]
        ),
        (
            &"3".parse().unwrap(),
            &"h".parse().unwrap(),
            &"x-sum".parse().unwrap()
        )
    );
}

#[test]
fn chunked_bodies_and_trailers_stay_what_they_are() {
    let headers = out(&[
        ("transfer-encoding", "chunked"),
        ("te", "gzip, trailers"),
        ("trailer", "x-sum"),
    ]);
    assert_eq!(headers["transfer-encoding"], "chunked");
    assert_eq!(headers["te"], "trailers");
    assert!(!out(&[("te", "gzip")]).contains_key(TE));
}

#[test]
fn trailers_that_pretend_are_not_declared_and_so_not_passed() {
    let headers = out(&[
        ("trailer", "X-Sum, X-Forwarded-For, X_A"),
        ("trailer", "Content-Length, X-Call-Id, Proxy"),
    ]);
    assert_eq!(
        headers.get_all("trailer").iter().collect::<Vec<_>>(),
        ["x-sum"]
    );
}

#[test]
fn a_chunked_answer_has_no_length() {
    let mut headers = head(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
    inbound(&mut headers);
    assert!(headers.is_empty());
}

#[test]
fn what_the_function_is_told_stands_in_no_head() {
    let told = ["x-call-id", "x-start-time", "x-forwarded-for"];
    let told = told
        .into_iter()
        .chain(["x-forwarded-proto", "x-forwarded-host"]);
    for name in told.clone() {
        assert!(out(&[(name, "1"), (name, "2")]).is_empty(), "{name}");
    }
    let all: Vec<_> = told.map(|name| (name, "1")).collect();
    let named = "x-call-id, x-start-time, x-forwarded-for, x-forwarded-proto, x-forwarded-host";
    let mut headers = head(&[&[("connection", named)], &all[..]].concat());
    let (ids, origin) = (Ids::of(None), origin());
    let (told, _) = outbound(&mut headers, &origin, &ids);
    assert!(headers.is_empty(), "{headers:?}");
    told.put_on(&mut headers, None);
    assert_eq!(headers.len(), 4, "told all the same: {headers:?}");
}

#[test]
fn a_client_cannot_pretend() {
    let headers = out(&[
        ("host", "shop.example"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-for", "5.6.7.8"),
        ("x-forwarded-prefix", "/admin"),
        ("x-real-ip", "1.2.3.4"),
        ("forwarded", "for=1.2.3.4"),
        ("x_forwarded_for", "1.2.3.4"),
        ("proxy", "http://evil"),
        ("authorization", "Bearer x"),
    ]);
    for gone in [
        "x-forwarded-for",
        "x-forwarded-prefix",
        "x-real-ip",
        "forwarded",
        "x_forwarded_for",
        "proxy",
    ] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(
        headers["authorization"], "Bearer x",
        "the function's own business"
    );
}

#[test]
fn repeated_fields_pass_and_the_watchdogs_word_does_not() {
    let mut headers = head(&[
        ("set-cookie", "a"),
        ("set-cookie", "b"),
        ("x-skep-not-accepted", "busy"),
        ("connection", "close"),
        ("trailer", "x"),
    ]);
    inbound(&mut headers);
    assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
    assert!(!headers.contains_key("x-skep-not-accepted") && !headers.contains_key("connection"));
    assert!(headers.contains_key("trailer"));
}
