//! API keys: what each scope opens, how long a key is good, and what is left of it when a gateway ends.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::client::{Answer, get, request};
use crate::support::eventually;
use crate::support::gateway::{Folder, Gateway, told};

const CAT: &str = "  cat:\n    fprocess: cat";
/// `admin:s3cret`.
const LOGIN: &str = "Basic YWRtaW46czNjcmV0";
const SCOPES: [&str; 4] = ["read", "invoke", "deploy", "admin"];

/// A gateway behind a login that keeps its state in this folder.
pub(crate) fn locked(functions: &str, state: &Folder) -> Gateway {
    locked_at(functions, state.0.to_str().unwrap())
}

fn locked_at(functions: &str, data_dir: &str) -> Gateway {
    let login = ["--basic-auth", "true", "--basic-auth-user", "admin"];
    let rest = ["--basic-auth-password", "s3cret", "--data-dir", data_dir];
    Gateway::with(functions, &[login, rest].concat())
}

pub(crate) fn send(gateway: &Gateway, method: &str, path: &str, by: &str, body: &Value) -> Answer {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let headers = [("Authorization", by)];
    request(gateway.address, method, path, &headers, body.as_bytes())
}

/// Makes a key, and returns its id and what its holder sends.
pub(crate) fn make(gateway: &Gateway, wanted: &Value) -> (String, String) {
    let made = send(gateway, "POST", "/system/keys", LOGIN, wanted);
    assert_eq!(made.status, 201, "{}", made.text());
    let key = made.json();
    let text = |field: &str| key[field].as_str().unwrap().to_owned();
    (text("id"), format!("Bearer {}", text("key")))
}

fn status(gateway: &Gateway, by: &str) -> u16 {
    send(gateway, "GET", "/system/functions", by, &Value::Null).status
}

fn revoke(gateway: &Gateway, id: &str) -> u16 {
    let path = format!("/system/keys/{id}");
    send(gateway, "DELETE", &path, LOGIN, &Value::Null).status
}

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md")).unwrap()
}

/// Verb and path of each request, with the scope that it asks for, as the documents say.
fn documented() -> BTreeMap<(String, String), String> {
    let page = page();
    let section = page.split("## Keys").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut rows = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let scope = cells[1].trim_matches('`').to_owned();
        assert!(SCOPES.contains(&scope.as_str()), "{line}");
        let requests = cells[3].split('`').skip(1).step_by(2);
        for (verbs, path) in requests.filter_map(|request| request.rsplit_once(' ')) {
            for verb in verbs.split(", ") {
                rows.insert((verb.to_owned(), path.to_owned()), scope.clone());
            }
        }
    }
    rows
}

#[test]
fn each_scope_opens_what_the_documents_say_and_no_more() {
    let state = Folder::new();
    let gateway = locked(CAT, &state);
    let rows = documented();
    let keys = SCOPES.map(|scope| make(&gateway, &json!({ "scopes": [scope] })).1);
    // A body that no operation takes, and names that nobody has: nothing is changed by asking.
    let body = json!([]);
    for ((verb, path), needed) in &rows {
        let path = path.replace("<name>", "nobody").replace("<id>", "x");
        for (scope, key) in SCOPES.iter().zip(&keys) {
            let covered =
                scope == needed || *scope == "admin" || (*scope == "deploy" && needed == "read");
            let answer = send(&gateway, verb, &path, key, &body);
            assert_eq!(
                answer.status != 403,
                covered,
                "{verb} {path} with {scope}: {}",
                answer.text()
            );
            let names_scope = answer.text().contains(&format!("the scope {needed}"));
            assert!(covered || names_scope, "{}", answer.text());
            assert_ne!(answer.status, 401, "{verb} {path} with {scope}");
        }
        assert_eq!(send(&gateway, verb, &path, "", &body).status, 401, "{path}");
    }
    let description = send(&gateway, "GET", "/system/openapi.json", LOGIN, &Value::Null).json();
    let described = description["paths"].as_object().unwrap().iter();
    let described = described.flat_map(|(path, operations)| {
        let path = path.replace("{namespaceName}", "<name>");
        let path = path.replace('{', "<").replace('}', ">");
        let verbs = operations.as_object().unwrap().keys();
        verbs.map(move |verb| (verb.to_uppercase(), path.clone()))
    });
    assert_eq!(
        rows.keys().cloned().collect::<BTreeSet<_>>(),
        described.collect(),
        "every request has its scope in docs/api.md"
    );
}

#[test]
fn keys_outlive_a_gateway_and_a_revoked_one_stops_at_once() {
    let state = Folder::new();
    let mut gateway = locked(CAT, &state);
    let (id, key) = make(&gateway, &json!({ "name": "ci", "scopes": ["read"] }));
    let (other, another) = make(&gateway, &json!({ "scopes": ["deploy"] }));
    assert_eq!(
        (status(&gateway, &key), status(&gateway, &another)),
        (200, 200)
    );
    gateway.signal("TERM");
    assert_eq!(gateway.ended(), Some(0));

    let gateway = locked(CAT, &state);
    assert_eq!(
        (status(&gateway, &key), status(&gateway, &another)),
        (200, 200)
    );
    let list = send(&gateway, "GET", "/system/keys", LOGIN, &Value::Null).json();
    let listed = |id: &str| {
        let mut keys = list.as_array().unwrap().iter();
        keys.find(|key| key["id"] == id).unwrap().clone()
    };
    let ci = listed(&id);
    assert_eq!(
        (&ci["name"], &ci["createdBy"]),
        (&"ci".into(), &"admin".into())
    );
    assert_eq!(ci["scopes"], json!(["read"]));
    assert!(
        ci["lastUsedAt"].is_string() && ci["expiresAt"].is_null(),
        "{ci}"
    );
    assert!(
        listed(&other)["createdAt"]
            .as_str()
            .unwrap()
            .starts_with("20")
    );

    let secret = key.rsplit('_').next().unwrap();
    assert!(!list.to_string().contains(secret));
    for entry in std::fs::read_dir(&state.0).unwrap() {
        let kept = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!kept.contains(secret), "the secret itself is kept nowhere");
    }
    assert_eq!((revoke(&gateway, &id), revoke(&gateway, &id)), (200, 404));
    assert_eq!(
        (status(&gateway, &key), status(&gateway, &another)),
        (401, 200)
    );
    assert!(gateway.line("revoke key").contains(&id));
    assert!(!gateway.log().contains(secret));
}

#[test]
fn what_a_key_changes_is_noted_under_its_id_and_name() {
    let state = Folder::new();
    let gateway = locked(CAT, &state);
    let (id, key) = make(
        &gateway,
        &json!({ "name": "robot 7", "scopes": ["deploy"] }),
    );
    let scaled = send(
        &gateway,
        "POST",
        "/system/scale-function/cat",
        &key,
        &json!({ "replicas": 2 }),
    );
    assert_eq!(scaled.status, 202, "{}", scaled.text());
    let line = gateway.line("scale function to 2");
    assert!(line.contains(&format!("key {id} (robot 7)")), "{line}");
    let refused = send(
        &gateway,
        "POST",
        "/system/keys",
        &key,
        &json!({ "scopes": ["read"] }),
    );
    assert_eq!(refused.status, 403, "nobody gives more than they have");
}

#[test]
fn a_key_is_also_a_password_and_wrong_ones_are_limited() {
    let state = Folder::new();
    let gateway = locked(CAT, &state);
    let (_, key) = make(&gateway, &json!({ "scopes": ["read"] }));
    let text = key.strip_prefix("Bearer ").unwrap();
    let address = format!("http://key:{text}@{}", gateway.address);
    assert!(told(gateway.address, &["ls", "--gateway", &address], "").contains("cat"));
    let wrong = format!("{}{}", &key[..key.len() - 64], "0".repeat(64));
    for _ in 0..10 {
        assert_eq!(status(&gateway, &wrong), 401);
    }
    let answer = send(&gateway, "GET", "/system/functions", &wrong, &Value::Null);
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    assert_eq!(
        (status(&gateway, &key), status(&gateway, LOGIN)),
        (200, 200)
    );
}

#[test]
fn whoever_is_not_let_in_is_told_how_to_be() {
    let state = Folder::new();
    let gateway = locked(CAT, &state);
    let answer = get(gateway.address, "/system/info");
    let challenges: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "www-authenticate")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(
        (answer.status, challenges),
        (
            401,
            vec!["Basic realm=\"Restricted\"", "Bearer realm=\"skep\""]
        )
    );
    assert!(
        answer.text().contains("Authorization: Bearer"),
        "{}",
        answer.text()
    );
    assert!(gateway.metric(r#"skep_refused_total{reason="unauthorized"}"#) >= 1.0);
}

#[test]
fn a_key_ends_when_it_was_said() {
    let state = Folder::new();
    let gateway = locked(CAT, &state);
    let (_, key) = make(&gateway, &json!({ "scopes": ["read"], "expiresIn": "4s" }));
    assert_eq!(status(&gateway, &key), 200);
    eventually("it has expired", || status(&gateway, &key) == 401);
    let answer = send(&gateway, "GET", "/system/info", &key, &Value::Null);
    assert!(answer.text().contains("has expired"), "{}", answer.text());
}

#[test]
fn a_wish_that_makes_no_sense_is_refused_field_by_field() {
    let state = Folder::new();
    let gateway = locked(CAT, &state);
    for (wish, says) in [
        (
            json!({}),
            "scopes: names one at least of read, invoke, deploy, admin",
        ),
        (json!({ "scopes": ["root"] }), "scopes[0]: is none of"),
        (
            json!({ "scopes": ["read"], "functions": ["cat"] }),
            "functions: limits",
        ),
        (
            json!({ "scopes": ["admin", "invoke"], "functions": ["cat"] }),
            "functions: limits",
        ),
        (
            json!({ "scopes": ["invoke"], "functions": ["../x"] }),
            "functions[0]:",
        ),
        (
            json!({ "scopes": ["read"], "expiresIn": "soon" }),
            "expiresIn: 'soon'",
        ),
        (
            json!({ "scopes": ["read"], "expiresIn": "0" }),
            "expiresIn: must",
        ),
        (
            json!({ "scopes": ["read"], "expiresIn": "1000001h" }),
            "expiresIn: must be 1000000h",
        ),
        (
            json!({ "scopes": ["read"], "name": "a) peer=b" }),
            "name: has",
        ),
    ] {
        let answer = send(&gateway, "POST", "/system/keys", LOGIN, &wish);
        assert_eq!(answer.status, 400, "{wish}");
        assert!(answer.text().starts_with(says), "{}", answer.text());
    }
}

#[test]
fn while_everybody_is_let_in_nobody_makes_a_key() {
    let gateway = Gateway::of(CAT);
    for (method, path) in [
        ("GET", "/system/keys"),
        ("POST", "/system/keys"),
        ("DELETE", "/system/keys/0"),
    ] {
        let answer = send(
            &gateway,
            method,
            path,
            LOGIN,
            &json!({ "scopes": ["admin"] }),
        );
        assert_eq!(answer.status, 409, "{method}: {}", answer.text());
        assert!(
            answer.text().contains("basic_auth=true"),
            "{}",
            answer.text()
        );
    }
}

#[test]
fn where_nothing_can_be_written_one_warning_says_so_and_no_key_is_made() {
    // Not even root can make a folder here.
    let gateway = locked_at(CAT, "/proc/skep");
    let wish = json!({ "scopes": ["read"] });
    let refused = send(&gateway, "POST", "/system/keys", LOGIN, &wish);
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("nothing was changed"));
    let keys = send(&gateway, "GET", "/system/keys", LOGIN, &Value::Null);
    assert_eq!(keys.json(), json!([]));
    let line = gateway.line("/proc/skep");
    assert!(
        line.contains("WARN") && line.contains("data_dir=off"),
        "{line}"
    );
    assert_eq!(gateway.log().matches("/proc/skep").count(), 1);
    let in_memory = locked_at(CAT, "off");
    let made = send(&in_memory, "POST", "/system/keys", LOGIN, &wish);
    assert_eq!((made.status, &made.json()["kept"]), (201, &false.into()));
}

#[test]
fn a_change_of_a_key_that_cannot_be_kept_is_not_made() {
    let state = Folder::new();
    let mut gateway = locked(CAT, &state);
    let (id, key) = make(&gateway, &json!({ "scopes": ["read"] }));
    let (gone, revoked) = make(&gateway, &json!({ "scopes": ["read"] }));
    assert_eq!(revoke(&gateway, &gone), 200);
    // Not even root can write over a folder.
    let fresh = state.0.join(".keys.json.new");
    std::fs::create_dir(&fresh).unwrap();
    let refused = send(
        &gateway,
        "DELETE",
        &format!("/system/keys/{id}"),
        LOGIN,
        &Value::Null,
    );
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("nothing was changed"));
    let wish = json!({ "scopes": ["admin"] });
    let made = send(&gateway, "POST", "/system/keys", LOGIN, &wish);
    assert_eq!(made.status, 503, "{}", made.text());
    assert_eq!(
        (status(&gateway, &key), status(&gateway, &revoked)),
        (200, 401)
    );
    gateway.signal("TERM");
    gateway.ended();
    let gateway = locked(CAT, &state);
    assert_eq!(
        (status(&gateway, &key), status(&gateway, &revoked)),
        (200, 401)
    );
    assert_eq!(revoke(&gateway, &id), 503);
    std::fs::remove_dir(&fresh).unwrap();
    assert_eq!(revoke(&gateway, &id), 200, "as soon as it can be kept");
    assert_eq!(status(&gateway, &key), 401);
    let keys = send(&gateway, "GET", "/system/keys", LOGIN, &Value::Null);
    assert_eq!(keys.json(), json!([]));
}

#[test]
fn a_corrupt_file_is_set_aside_and_everything_else_goes_on() {
    let state = Folder::new();
    state.write("keys.json", "{\"version\":1,\"keys\":[");
    let gateway = locked(CAT, &state);
    assert_eq!(status(&gateway, LOGIN), 200);
    let (_, key) = make(&gateway, &json!({ "scopes": ["read"] }));
    assert_eq!(status(&gateway, &key), 200);
    gateway.logs("set aside as");
    let names = std::fs::read_dir(&state.0).unwrap();
    let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.any(|name| name.starts_with("keys.json.aside-")));
}

#[test]
fn two_gateways_of_one_folder_have_the_same_keys() {
    let state = Folder::new();
    let [one, two] = [(), ()].map(|()| locked(CAT, &state));
    let (id, key) = make(&one, &json!({ "scopes": ["read"] }));
    eventually("the other one knows it", || status(&two, &key) == 200);
    let (_, second) = make(&two, &json!({ "scopes": ["read"] }));
    assert_eq!(revoke(&two, &id), 200);
    eventually("it is revoked everywhere", || status(&one, &key) == 401);
    assert_eq!((status(&one, &second), status(&two, &second)), (200, 200));
}
