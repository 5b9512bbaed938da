//! Tasks that fail and updates that are stopped: what the API and the log say of them.

use std::time::Duration;

use serde_json::json;

use crate::support::within;
use crate::world::{World, deployment, docker};

const NO_IMAGE: &str = "skep-test/there-is-none:1";

#[test]
fn a_function_whose_tasks_fail_says_why_until_it_is_well() {
    let Some(world) = World::new() else { return };
    let name = world.create(NO_IMAGE, json!({}));
    within(Duration::from_secs(20), "the task's error is shown", || {
        world.describe(&name)["lastError"]["message"].is_string()
    });
    let error = world.describe(&name)["lastError"].clone();
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("No such image"), "{error}");
    for field in ["since", "task", "node"] {
        assert!(!error[field].as_str().unwrap().is_empty(), "{error}");
    }
    world.gateway_logs("a replica failed: No such image");
    let seconds = Duration::from_secs(20);
    within(seconds, "more tasks have failed", || {
        docker(&["service", "ps", "--quiet", &name]).lines().count() > 3
    });
    let log = world.gateway_log();
    assert_eq!(log.matches("a replica failed").count(), 1, "{log}");

    let mend = deployment(&name, "skep/catservice", json!({}));
    assert_eq!(world.send("PUT", "/system/functions", &mend).status, 202);
    world.available(&name, 1);
    within(Duration::from_secs(30), "the update completes", || {
        world.describe(&name)["updateStatus"]["state"] == "completed"
    });
    assert!(world.describe(&name).get("lastError").is_none());
}

#[test]
fn an_update_that_is_rolled_back_says_so_and_why() {
    let Some(world) = World::new() else { return };
    let name = world.create("skep/catservice", json!({}));
    world.available(&name, 1);
    let broken = deployment(&name, NO_IMAGE, json!({}));
    assert_eq!(world.send("PUT", "/system/functions", &broken).status, 202);
    within(Duration::from_secs(60), "the update is rolled back", || {
        world.describe(&name)["updateStatus"]["state"] == "rollback_completed"
    });
    let told = world.describe(&name);
    let error = told["lastError"]["message"].as_str().unwrap();
    assert!(error.contains("No such image"), "{told}");
    world.gateway_logs("the update is rolled back");
    let log = world.gateway_log();
    assert_eq!(log.matches("the update is rolled back").count(), 1, "{log}");
}
