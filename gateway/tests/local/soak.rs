//! Long forms, which `make soak` runs: many calls while everything changes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::client::post;
use crate::support::eventually;
use crate::support::gateway::{Gateway, children, signal};

/// Callers side by side.
const CALLERS: usize = 8;
const CALLS: usize = 20_000;

fn functions(version: usize) -> String {
    format!(
        "  cat:\n    fprocess: cat\n    labels:\n      com.openfaas.scale.min: 3\n    environment:\n      V: '{version}'"
    )
}

#[test]
#[ignore = "minutes: make soak"]
fn twenty_thousand_calls_while_the_function_is_replaced_again_and_again_all_succeed() {
    let gateway = Gateway::of(&functions(0));
    let made = AtomicUsize::new(0);
    let wrong = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                while made.fetch_add(1, Ordering::Relaxed) < CALLS {
                    let answer = post(gateway.address, "/function/cat", "hello");
                    if answer.status != 200 || answer.body != b"hello" {
                        wrong.fetch_add(1, Ordering::Relaxed);
                        eprintln!("{} {}", answer.status, answer.text());
                    }
                }
            });
        }
        for version in 1.. {
            if made.load(Ordering::Relaxed) >= CALLS {
                println!("{CALLS} calls, {} replacements", version - 1);
                break;
            }
            gateway.change(&functions(version));
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    assert_eq!(wrong.load(Ordering::Relaxed), 0, "of {CALLS}");
}

#[test]
#[ignore = "minutes: make soak"]
fn watchdogs_that_are_killed_cost_no_call_but_their_own() {
    let gateway = Gateway::of(&functions(0));
    let ready = || gateway.metric("skep_endpoints{function_name=\"cat\",state=\"ready\"}");
    let whole = || children(gateway.pid()).len() == 3 && ready() >= 3.0;
    let done = AtomicBool::new(false);
    let (made, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let kills = 30;
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    made.fetch_add(1, Ordering::Relaxed);
                    if post(gateway.address, "/function/cat", "hello").status != 200 {
                        wrong.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let killer = scope.spawn(|| {
            for _ in 0..kills {
                eventually("three replicas", whole);
                let victim = children(gateway.pid())[0];
                signal(victim, "KILL");
                eventually("it is gone", || !children(gateway.pid()).contains(&victim));
            }
            eventually("three replicas", whole);
        });
        let killed = killer.join();
        done.store(true, Ordering::Relaxed);
        killed.unwrap();
    });
    let (made, wrong) = (made.into_inner(), wrong.into_inner());
    println!("{made} calls, {wrong} lost, {kills} watchdogs killed");
    assert!(
        wrong <= kills * CALLERS,
        "only calls that ran on a killed watchdog may fail: {wrong} of {made}"
    );
}
