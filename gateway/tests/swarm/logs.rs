//! Logs of a function's tasks.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{get, post};
use crate::support::within;
use crate::world::World;

fn lines(world: &World, query: &str) -> Vec<Value> {
    let answer = get(world.gateway, &format!("/system/logs?{query}"));
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/x-ndjson")),
        "{}",
        answer.text()
    );
    assert!(answer.complete, "a clean end");
    answer
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn has(lines: &[Value], text: &str) -> bool {
    lines
        .iter()
        .any(|line| line["text"].as_str().unwrap().contains(text))
}

#[test]
fn lines_of_every_task_are_told_by_task_and_followed() {
    let Some(world) = World::new() else { return };
    let options = ["--replicas", "2", "--env", "write_debug=true"];
    let cat = world.service("skep/catservice", &options);
    within(Duration::from_secs(60), "two replicas", || {
        world.number(&cat, "availableReplicas") == 2
    });
    for _ in 0..20 {
        post(
            world.gateway,
            &format!("/function/{cat}"),
            "words of the test\n",
        );
    }
    let all = format!("name={cat}.openfaas-fn&tail=-1");
    within(Duration::from_secs(30), "the words are told", || {
        has(&lines(&world, &all), "words of the test")
    });
    let told = lines(&world, &all);
    let first = &told[0];
    assert_eq!(
        (&first["name"], &first["namespace"]),
        (&json!(cat), &json!("openfaas-fn"))
    );
    assert!(
        first["timestamp"].as_str().unwrap().starts_with("20"),
        "{first}"
    );
    let tasks: std::collections::BTreeSet<_> = told
        .iter()
        .map(|line| line["instance"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(tasks.len(), 2, "{tasks:?}");
    let one = tasks.first().unwrap();
    let of_one = lines(&world, &format!("name={cat}&instance={one}"));
    assert!(!of_one.is_empty() && of_one.iter().all(|line| line["instance"] == **one));
    assert_eq!(
        lines(&world, &format!("name={cat}&instance={one}&tail=2")).len(),
        2
    );
    assert!(lines(&world, &format!("name={cat}&since=2100-01-01T00:00:00Z")).is_empty());
    follows(&world, &cat);

    for (query, status, says) in [
        ("name=nobody", 404, "not found"),
        (&format!("name={cat}&instance=nosuchtask"), 404, "instance:"),
        (
            &format!("name={cat}&instance=../services"),
            404,
            "instance:",
        ),
        (&format!("name={cat}&tail=many"), 400, "tail:"),
        (&format!("name={cat}&namespace=other"), 400, "namespace:"),
    ] {
        let answer = get(world.gateway, &format!("/system/logs?{query}"));
        assert_eq!(answer.status, status, "{query}: {}", answer.text());
        assert!(answer.text().contains(says), "{}", answer.text());
    }
}

/// A line that is written while somebody follows reaches them.
fn follows(world: &World, function: &str) {
    let mut follower = BufReader::new(TcpStream::connect(world.gateway).unwrap());
    follower
        .get_ref()
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let ask =
        format!("GET /system/logs?name={function}&follow=true&tail=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    follower.get_mut().write_all(ask.as_bytes()).unwrap();
    let mut told = String::new();
    while !told.contains("\"text\"") {
        assert!(follower.read_line(&mut told).unwrap() > 0, "{told}");
    }
    post(
        world.gateway,
        &format!("/function/{function}"),
        "later words\n",
    );
    while !told.contains("later words") {
        assert!(follower.read_line(&mut told).unwrap() > 0, "{told}");
    }
}
