//! The gate's tests.

use super::failures::MOST_FAILURES;
use super::key::Wish;
use super::*;
use crate::state::State;

const PEER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

fn header(value: &str) -> HeaderMap {
    let value = HeaderValue::from_str(value).unwrap();
    HeaderMap::from_iter([(AUTHORIZATION, value)])
}

fn login(user: &str, password: &str) -> HeaderMap {
    header(&format!(
        "Basic {}",
        STANDARD.encode(format!("{user}:{password}"))
    ))
}

fn bearer(key: &str) -> HeaderMap {
    header(&format!("Bearer {key}"))
}

fn gate(login: Option<Login>) -> Gate {
    Gate::new(login, Keys::open(&State::default()))
}

fn admins() -> Gate {
    gate(Some(Login::of("admin", "s3cret")))
}

/// A new key of this gate.
fn key(gate: &Gate, scopes: &[Scope], functions: &[&str]) -> String {
    let wish = Wish {
        name: "ci".to_owned(),
        scopes: scopes.to_vec(),
        functions: functions.iter().map(|&name| name.to_owned()).collect(),
        ..Wish::default()
    };
    let (record, text) = Key::make(wish, keys::seconds()).unwrap();
    gate.keys().add(record).unwrap();
    text
}

/// Who is let in, or why not.
fn entering(gate: &Gate, headers: &HeaderMap) -> Result<String, Denied> {
    gate.admit(headers, PEER, Scope::Read)
        .map(|who| who.to_string())
}

#[test]
fn the_one_login_is_let_in() {
    let gate = admins();
    assert_eq!(
        entering(&gate, &login("admin", "s3cret")),
        Ok("admin".to_owned())
    );
    let lower = STANDARD.encode("admin:s3cret");
    assert!(entering(&gate, &header(&format!("basic {lower}"))).is_ok());
    for wrong in [
        login("admin", "s3cre"),
        login("admin", "s3crets"),
        login("root", "s3cret"),
        bearer("s3cret"),
    ] {
        assert_eq!(entering(&gate, &wrong), Err(Denied::Unknown), "{wrong:?}");
    }
    for nothing in [
        header("Bearer "),
        header("Basic ?"),
        header("Digest x"),
        HeaderMap::new(),
    ] {
        assert_eq!(
            entering(&gate, &nothing),
            Err(Denied::Nothing),
            "{nothing:?}"
        );
    }
}

#[test]
fn while_there_is_no_login_every_header_is_ignored() {
    let gate = gate(None);
    for headers in [
        HeaderMap::new(),
        header("Bearer "),
        login("x", "y"),
        header("nonsense"),
    ] {
        assert_eq!(entering(&gate, &headers), Ok("anyone".to_owned()));
    }
}

#[test]
fn a_key_is_let_in_as_a_bearers_and_as_a_password_as_far_as_it_goes() {
    let gate = admins();
    let text = key(&gate, &[Scope::Read], &[]);
    for headers in [
        bearer(&text),
        header(&format!("bearer  {text} ")),
        login("anybody", &text),
        login("", &text),
    ] {
        let who = entering(&gate, &headers).unwrap();
        assert!(who.starts_with("key ") && who.ends_with("(ci)"), "{who}");
        assert!(!who.contains(&text[18..]), "no secret");
        let denied = gate.admit(&headers, PEER, Scope::Deploy).unwrap_err();
        assert!(matches!(denied, Denied::Lacks(_, Scope::Deploy)));
        assert_eq!(denied.status(), StatusCode::FORBIDDEN);
        assert!(denied.sentence("this").contains("the scope deploy"));
    }
    let id = KeyId::parse(&text[5..17]).unwrap();
    assert!(gate.keys().remove(id).unwrap());
    assert_eq!(entering(&gate, &bearer(&text)), Err(Denied::Unknown));
}

#[test]
fn a_call_takes_a_key_for_its_function_and_the_function_does_not_see_it() {
    let gate = admins();
    let shop = key(&gate, &[Scope::Invoke], &["shop"]);
    let reader = key(&gate, &[Scope::Read], &[]);
    let calls = |headers: &mut HeaderMap, function: &str| gate.admit_call(headers, function);
    let mut headers = bearer(&shop);
    headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer more"));
    assert_eq!(calls(&mut headers, "shop"), Ok(()));
    assert!(!headers.contains_key(AUTHORIZATION));
    assert_eq!(calls(&mut login("key", &shop), "shop"), Ok(()));
    let other = calls(&mut bearer(&shop), "bank");
    assert!(matches!(other, Err(Denied::Elsewhere(_))));
    let read_only = calls(&mut bearer(&reader), "shop");
    assert!(matches!(read_only, Err(Denied::Lacks(_, Scope::Invoke))));
    for (mut wrong, denied) in [
        (HeaderMap::new(), Denied::Nothing),
        (bearer("x"), Denied::Unknown),
        // The login opens the management API; a function could be made to guess it.
        (login("admin", "s3cret"), Denied::Unknown),
    ] {
        assert_eq!(calls(&mut wrong, "shop"), Err(denied));
    }
}

#[test]
fn after_ten_wrong_logins_guesses_of_the_address_wait_and_the_right_one_passes() {
    let gate = admins();
    for _ in 0..MOST_FAILURES {
        assert_eq!(
            entering(&gate, &login("admin", "guess")),
            Err(Denied::Unknown)
        );
    }
    let [right, wrong] = ["s3cret", "guess"].map(|password| login("admin", password));
    let Err(Denied::TooMany(wait)) = entering(&gate, &wrong) else {
        panic!("heard")
    };
    assert!((1..=61).contains(&wait), "{wait}");
    assert_eq!(entering(&gate, &right), Ok("admin".to_owned()));
    assert_eq!(gate.turn(&right, PEER), Ok(Duration::ZERO), "the first");
    assert!(gate.turn(&right, PEER).unwrap() > Duration::ZERO);
    let others = (1..=20).map(|last| Some(IpAddr::from([10, 0, 0, last])));
    let others = others.filter(|other| gate.turn(&right, *other) == Ok(Duration::ZERO));
    assert!(others.count() >= 18, "two may share the place");
    // A key has 256 random bits and cannot be guessed, so keys are not slowed down.
    let key = key(&gate, &[Scope::Read], &[]);
    for headers in [bearer(&key), login("key", &key), HeaderMap::new()] {
        assert_eq!(gate.turn(&headers, PEER), Ok(Duration::ZERO));
    }
}

#[test]
fn wrong_keys_are_limited_and_keep_neither_a_right_one_nor_the_login_out() {
    let gate = admins();
    let right = key(&gate, &[Scope::Read], &[]);
    let wrong = format!("{}{}", &right[..18], "0".repeat(64));
    for _ in 0..MOST_FAILURES {
        assert_eq!(entering(&gate, &login("key", &wrong)), Err(Denied::Unknown));
    }
    let limited = entering(&gate, &bearer(&wrong));
    assert!(matches!(limited, Err(Denied::TooMany(_))), "{limited:?}");
    assert!(entering(&gate, &bearer(&right)).is_ok());
    assert!(entering(&gate, &login("admin", "s3cret")).is_ok());
}
