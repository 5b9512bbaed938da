//! How often a function was called is known after a restart, too.

use crate::support::client::{get, post};
use crate::support::eventually;
use crate::support::gateway::{Folder, Gateway};

const CAT: &str = "  cat:\n    fprocess: cat";
const BOTH: &str = "  cat:\n    fprocess: cat\n  dog:\n    fprocess: cat";

fn start(functions: &str, state: &Folder, flags: &[&str]) -> Gateway {
    let data_dir = ["--data-dir", state.0.to_str().unwrap()];
    Gateway::with(functions, &[&data_dir, flags].concat())
}

fn call(gateway: &Gateway, name: &str, times: usize) {
    for _ in 0..times {
        let answer = post(gateway.address, &format!("/function/{name}"), "hi");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn count(gateway: &Gateway, name: &str) -> Option<u64> {
    let list = get(gateway.address, "/system/functions").json();
    let mut functions = list.as_array().unwrap().iter();
    let function = functions.find(|function| function["name"] == name)?;
    // Nothing is as good as 0 to clients.
    Some(function["invocationCount"].as_u64().unwrap_or(0))
}

fn end(mut gateway: Gateway) {
    gateway.signal("TERM");
    assert_eq!(gateway.ended(), Some(0));
}

#[test]
fn counts_go_on_after_a_restart() {
    let state = Folder::new();
    let mut all = 0;
    for round in 1..=3 {
        let gateway = start(BOTH, &state, &[]);
        eventually("it is listed", || count(&gateway, "cat") == Some(all));
        call(&gateway, "cat", round);
        all += round as u64;
        eventually("all are counted", || count(&gateway, "cat") == Some(all));
        assert_eq!(count(&gateway, "dog"), Some(0));
        end(gateway);
    }
}

#[test]
fn a_gateway_that_is_killed_has_kept_what_is_older_than_some_seconds() {
    let state = Folder::new();
    let mut gateway = start(CAT, &state, &[]);
    call(&gateway, "cat", 4);
    let file = state.0.join("counts.json");
    eventually("it is written", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("\"calls\":4"))
    });
    gateway.signal("KILL");
    gateway.ended();
    let gateway = start(CAT, &state, &[]);
    eventually("it is read", || count(&gateway, "cat") == Some(4));
}

#[test]
fn a_function_that_is_made_again_begins_at_nothing() {
    let state = Folder::new();
    let gateway = start(BOTH, &state, &[]);
    call(&gateway, "dog", 3);
    eventually("they are counted", || count(&gateway, "dog") == Some(3));
    gateway.change(CAT);
    eventually("it is gone", || count(&gateway, "dog").is_none());
    gateway.change(BOTH);
    eventually("it is back", || count(&gateway, "dog").is_some());
    assert_eq!(count(&gateway, "dog"), Some(0));
    call(&gateway, "dog", 1);
    eventually("one is counted", || count(&gateway, "dog") == Some(1));
    end(gateway);
    let gateway = start(BOTH, &state, &[]);
    eventually("one is known", || count(&gateway, "dog") == Some(1));
}

#[test]
fn the_next_gateway_takes_the_counts_over_and_counts_nothing_twice() {
    let state = Folder::new();
    let socket = state.0.join("handover");
    let handover = ["--handover", socket.to_str().unwrap()];
    let mut first = start(CAT, &state, &handover);
    call(&first, "cat", 5);
    let port = first.address.port().to_string();
    let next = start(CAT, &state, &[&handover[..], &["--port", &port]].concat());
    call(&next, "cat", 3);
    assert_eq!(first.ended(), Some(0), "{}", first.log());
    eventually("both have counted", || count(&next, "cat") == Some(8));
    call(&next, "cat", 1);
    end(next);
    let last = start(CAT, &state, &[]);
    eventually("all are known", || count(&last, "cat") == Some(9));
}

#[test]
fn a_corrupt_file_costs_the_counts_and_nothing_else() {
    let state = Folder::new();
    state.write(
        "counts.json",
        "{\"version\":1,\"functions\":{\"cat\":{\"calls\":-1}}}",
    );
    let gateway = start(CAT, &state, &[]);
    call(&gateway, "cat", 1);
    eventually("it counts", || count(&gateway, "cat") == Some(1));
    gateway.logs("counts.json.aside-");
}
