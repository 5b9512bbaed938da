//! Functions that ask for a key: who has none gets no further than the gateway, and who has one keeps it from the function.

use serde_json::{Value, json};

use super::keys::{locked, make, send};
use crate::support::client::{Answer, get, post, raw, request};
use crate::support::gateway::{Folder, Gateway};
use crate::support::{eventually, within};

/// Two that show what they are told; one of them asks for a key.
const ENVIRONMENTS: &str =
    "  shop:\n    fprocess: env\n    labels:\n      skep.auth: key\n  open:\n    fprocess: env";
/// `admin:s3cret`.
const LOGIN: &str = "Basic YWRtaW46czNjcmV0";

fn call(gateway: &Gateway, path: &str, key: &str) -> Answer {
    send(gateway, "POST", path, key, &Value::Null)
}

fn started(gateway: &Gateway) -> f64 {
    gateway.metric(r#"gateway_function_invocation_started{function_name="shop"}"#)
}

#[test]
fn without_a_key_no_way_leads_to_the_function() {
    let state = Folder::new();
    let gateway = locked(ENVIRONMENTS, &state);
    let to = gateway.address;
    let named = [("X-Function", "shop")];
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    for answer in [
        get(to, "/function/shop"),
        post(to, "/function/shop", "body"),
        get(to, "/function/shop/path?q=1"),
        get(to, "/function/shop.openfaas-fn"),
        request(to, "OPTIONS", "/function/shop", &[], b""),
        request(to, "POST", "/", &named, b"body"),
        request(to, "GET", "/function/shop", &upgrade, b""),
        call(&gateway, "/function/shop", LOGIN),
        call(&gateway, "/function/shop", "Bearer "),
        call(&gateway, "/function/shop", "Bearer skep_0_0"),
    ] {
        assert_eq!(answer.status, 401, "{}", answer.text());
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Bearer realm=\"skep\"")
        );
        assert_eq!(answer.header("x-openfaas-internal"), Some("gateway"));
        assert!(
            answer
                .text()
                .contains("function 'shop' asks for an API key")
        );
    }
    let head = request(to, "HEAD", "/function/shop", &[], b"");
    assert_eq!(head.status, 401);
    let expects = b"POST /function/shop HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n";
    let told = String::from_utf8(raw(to, expects).unwrap().body).unwrap();
    assert!(
        told.contains("asks for an API key"),
        "refused before the body: {told}"
    );
    assert!(started(&gateway) < 1.0, "nothing of that was a call");
    assert!(gateway.metric(r#"skep_refused_total{reason="unauthorized"}"#) >= 12.0);
}

#[test]
fn a_key_opens_its_functions_and_stays_with_the_gateway() {
    let state = Folder::new();
    let gateway = locked(ENVIRONMENTS, &state);
    let shops = json!({ "scopes": ["invoke"], "functions": ["shop.openfaas-fn"] });
    let (id, key) = make(&gateway, &shops);
    for path in ["/function/shop", "/function/shop/path?q=1"] {
        let answer = call(&gateway, path, &key);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            answer.text().contains("Http_Method=POST"),
            "{}",
            answer.text()
        );
        assert!(!answer.text().contains("skep_") && !answer.text().contains("Http_Authorization"));
    }
    let by_header = [("X-Function", "shop"), ("Authorization", key.as_str())];
    assert_eq!(
        request(gateway.address, "POST", "/", &by_header, b"").status,
        200
    );
    // A function that asks for nothing gets what is sent.
    let open = call(&gateway, "/function/open", "Bearer of news");
    assert!(
        open.text().contains("Http_Authorization=Bearer of news"),
        "{}",
        open.text()
    );

    let (_, elsewhere) = make(
        &gateway,
        &json!({ "scopes": ["invoke"], "functions": ["open"] }),
    );
    let (_, deployer) = make(&gateway, &json!({ "scopes": ["deploy"] }));
    for (wrong, says) in [
        (&elsewhere, "is for other functions than function 'shop'"),
        (&deployer, "asks for the scope invoke"),
    ] {
        let answer = call(&gateway, "/function/shop", wrong);
        assert_eq!(answer.status, 403);
        assert!(answer.text().contains(says), "{}", answer.text());
    }
    let (_, all) = make(&gateway, &json!({ "scopes": ["invoke"] }));
    assert_eq!(call(&gateway, "/function/shop", &all).status, 200);

    let path = format!("/system/keys/{id}");
    assert_eq!(
        send(&gateway, "DELETE", &path, LOGIN, &Value::Null).status,
        200
    );
    assert_eq!(
        call(&gateway, "/function/shop", &key).status,
        401,
        "at once"
    );
    assert!(!gateway.log().contains(key.rsplit('_').next().unwrap()));
}

#[test]
fn a_lock_holds_while_the_management_api_is_open_and_with_a_broken_label() {
    let state = Folder::new();
    let mut gateway = locked(ENVIRONMENTS, &state);
    let (_, key) = make(&gateway, &json!({ "scopes": ["invoke"] }));
    gateway.signal("TERM");
    gateway.ended();
    let broken = ENVIRONMENTS.replace("auth: key", "auth: keys");
    let gateway = Gateway::with(&broken, &["--data-dir", state.0.to_str().unwrap()]);
    assert_eq!(get(gateway.address, "/function/shop").status, 401);
    assert_eq!(call(&gateway, "/function/shop", &key).status, 200);
    gateway.logs("skep.auth");
}

#[test]
fn a_label_that_comes_or_goes_holds_from_then_on() {
    let gateway = Gateway::of("  shop:\n    fprocess: cat");
    let status = || get(gateway.address, "/function/shop").status;
    eventually("it answers", || status() == 200);
    gateway.change("  shop:\n    fprocess: cat\n    labels:\n      skep.auth: key");
    within(std::time::Duration::from_secs(20), "it is locked", || {
        status() == 401
    });
}
