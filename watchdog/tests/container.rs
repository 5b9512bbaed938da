//! A container with limits, and what would break them.

mod support;

use std::time::{Duration, Instant};

use support::client::Request;
use support::place::in_container;
use support::{eventually_or, processes_with};

/// Memory of the container, swap included.
const MEMORY: [&str; 2] = ["--memory=64m", "--memory-swap=64m"];

#[test]
fn a_body_larger_than_the_containers_memory_passes_through_unchanged() {
    passes_through(256);
}

#[test]
#[ignore = "a minute: make soak"]
fn two_gigabytes_pass_through_a_container_of_64_megabytes_unchanged() {
    passes_through(2048);
}

fn passes_through(megabytes: u64) {
    let Some(builder) = in_container(&MEMORY) else {
        return;
    };
    let watchdog = builder.env("fprocess", "cat").start();
    let began = Instant::now();
    watchdog.pass_through(megabytes);
    let (took, highest) = (began.elapsed(), watchdog.peak());
    println!("{megabytes} MiB there and back in {took:?}, at most {highest} KiB resident");
    assert!(highest < 8 * 1024, "{highest} KiB were resident");
}

/// Starts itself again and again, each time as an orphan, and goes on when it may not; a shell would give up then, awk
/// does not. TERM does nothing to it.
const BOMB: &str = r#"trap '' TERM; exec awk -v name=$1 'BEGIN { for (;;) system("sh $TMPDIR/bomb.sh " name " 2>/dev/null &") }'"#;

/// Sets the bomb off for whoever asks for it, and waits for its end; answers the others.
const COMMAND: &str = r#"read -r what name
if [ "$what" = bomb ]; then setsid sh $TMPDIR/bomb.sh $name & sleep 1000; fi
echo "$what""#;

#[test]
fn a_fork_bomb_ends_at_its_deadline_and_the_watchdog_answers_meanwhile() {
    // One processor, so that the bomb hurts its own container and not the other tests.
    let Some(builder) = in_container(&["--pids-limit=100", "--cpus=1"]) else {
        return;
    };
    std::fs::write(builder.directory().join("bomb.sh"), BOMB).unwrap();
    let watchdog = builder.script(COMMAND).env("exec_timeout", "3s").start();
    let name = format!("bomb-{}", std::process::id());
    std::thread::scope(|scope| {
        let bomb = scope.spawn(|| {
            let began = Instant::now();
            (watchdog.post(format!("bomb {name}\n")), began.elapsed())
        });
        eventually_or(
            || processes_with(&name).len() > 50,
            || format!("there are many; there are {}", processes_with(&name).len()),
        );
        let began = Instant::now();
        let mut statuses = Vec::new();
        while !bomb.is_finished() {
            assert_eq!(watchdog.get("/_/health").status, 200);
            let answer = watchdog.post("other\n");
            // There may be room for one more process or not; there is an answer.
            assert!(matches!(answer.status, 200 | 408 | 500), "{answer:?}");
            statuses.push(answer.status);
        }
        println!(
            "{} calls in {:?} beside the bomb",
            statuses.len(),
            began.elapsed()
        );
        assert!(!statuses.is_empty());
        let (answer, took) = bomb.join().unwrap();
        assert_eq!(answer.status, 408);
        println!("the bomb was answered after {took:?}");
        assert!(took < Duration::from_secs(15), "{took:?}");
    });
    eventually_or(
        || processes_with(&name).is_empty(),
        || format!("nothing is left; there are {}", processes_with(&name).len()),
    );
    for _ in 0..20 {
        let answer = watchdog.call(&Request::post("/", "other\n"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "other\n"));
    }
    eventually_or(
        || watchdog.children().is_empty(),
        || format!("no child is left: {:?}", watchdog.children()),
    );
}
