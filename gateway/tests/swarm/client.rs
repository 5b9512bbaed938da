//! The client commands on a Swarm: deploy, look, change a secret, remove.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::gateway::{Folder, ask, skep, told};
use crate::support::within;
use crate::world::{Secret, World, own_name, try_docker};

#[test]
fn a_function_is_deployed_called_looked_at_and_removed_with_nothing_but_skep() {
    let secret = Secret::named();
    let Some(world) = World::new() else { return };
    let (name, key) = (own_name("fn"), secret.0.clone());
    world.adopt(&name);
    assert_eq!(
        told(world.gateway, &["secret", "create", &key], "first"),
        format!("Created secret {key}\n")
    );
    assert!(told(world.gateway, &["secret", "ls"], "").contains(&key));
    let fprocess = format!("cat /var/openfaas/secrets/{key}");
    let deploy = [
        "deploy",
        &name,
        "--image",
        "skep/catservice",
        "--secret",
        &key,
        "--fprocess",
        &fprocess,
        "-e",
        "A=b",
        "--memory",
        "40Mi",
    ];
    let deployed = told(world.gateway, &deploy, "");
    let (first, url) = (
        format!("Created {name}\n"),
        format!("http://{}/function/{name}", world.gateway),
    );
    let converged = format!("{name}: 1 of 1 replicas ready after ");
    assert!(
        deployed.starts_with(&first) && deployed.contains(&converged),
        "{deployed}"
    );
    assert!(
        deployed.ends_with(&format!("  url  {url}\n  try  curl -d hello {url}\n")),
        "{deployed}"
    );
    assert_eq!(
        told(world.gateway, &["invoke", &name], ""),
        "first",
        "deploy has waited until it can be called"
    );
    assert!(
        told(
            world.gateway,
            &[
                "deploy",
                &name,
                "--image",
                "skep/catservice",
                "--secret",
                &key,
                "--fprocess",
                &fprocess
            ],
            ""
        )
        .starts_with("Updated ")
    );
    told(world.gateway, &["secret", "update", &key], "second");
    within(Duration::from_secs(60), "the new value is seen", || {
        told(world.gateway, &["invoke", &name], "") == "second"
    });
    assert!(told(world.gateway, &["describe", &name], "").contains("endpoint"));
    within(Duration::from_secs(30), "its logs are shown", || {
        told(world.gateway, &["logs", &name], "").contains("Forking fprocess")
    });
    told(world.gateway, &["scale", &name, "2"], "");
    within(Duration::from_secs(30), "two replicas log", || {
        told(world.gateway, &["invoke", &name], "");
        told(world.gateway, &["ls"], "").contains("2/2")
    });
    for _ in 0..20 {
        told(world.gateway, &["invoke", &name], "");
    }
    let logs = told(world.gateway, &["logs", &name], "");
    let times: Vec<_> = logs
        .lines()
        .map(|line| &line[.."2026-12-01T00:00:00".len()])
        .collect();
    assert!(times.len() > 40 && times.is_sorted(), "{logs}");
    assert_eq!(
        told(world.gateway, &["rm", &name], ""),
        format!("Removed {name}\n")
    );
    assert!(!try_docker(&["service", "inspect", &name]).status.success());
    assert_eq!(
        told(world.gateway, &["secret", "rm", &key], ""),
        format!("Removed secret {key}\n")
    );
}

#[test]
fn a_stack_file_is_deployed_and_what_is_wrong_with_it_is_told() {
    let Some(world) = World::new() else { return };
    let folder = Folder::new();
    let (one, other) = (own_name("one"), own_name("other"));
    [&one, &other].iter().for_each(|name| world.adopt(name));
    let functions = |image: &str| {
        format!(
            "provider:\n  name: openfaas\nfunctions:\n  {one}:\n    image: {image}\n    environment:\n      n: 1\n  {other}:\n    image: {image}\n"
        )
    };
    let good = folder.write("stack.yml", &functions("skep/catservice"));
    let deployed = told(
        world.gateway,
        &["deploy", "-f", good.to_str().unwrap(), &one],
        "",
    );
    assert!(
        deployed.contains(&one) && !deployed.contains(&other),
        "{deployed}"
    );
    told(world.gateway, &["deploy", "-f", good.to_str().unwrap()], "");
    let list = told(world.gateway, &["ls"], "");
    assert!(list.contains(&one) && list.contains(&other), "{list}");
    let bad = folder.write("bad.yml", &functions("a b"));
    let output = ask(world.gateway, &["deploy", "-f", bad.to_str().unwrap()], "");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && complaint.contains("400: image:"),
        "{complaint}"
    );
}

#[test]
fn a_deployment_that_fails_shows_the_tasks_error_at_once_and_exits_with_1() {
    let Some(world) = World::new() else { return };
    let name = own_name("broken");
    world.adopt(&name);
    let gateway = format!("http://{}", world.gateway);
    let mut child = skep()
        .args([
            "deploy",
            &name,
            "--image",
            "skep-test/no-such-image",
            "--gateway",
            &gateway,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Swarm retries every five seconds; the first error has to be there long before the end.
    let (began, mut lines) = (
        Instant::now(),
        BufReader::new(child.stderr.take().unwrap()).lines(),
    );
    let error = lines
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.contains("No such image"));
    let (error, shown) = (error.unwrap(), began.elapsed());
    assert!(
        error.starts_with(&format!("{name}: ")) && shown < Duration::from_secs(5),
        "{shown:?} {error}"
    );
    let rest: String = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest}");
    assert!(
        rest.contains("3 replicas failed to run: No such image"),
        "{rest}"
    );

    let described = told(world.gateway, &["describe", &name], "");
    assert!(described.contains("No such image"), "{described}");
    let doctor = ask(world.gateway, &["doctor"], "");
    let findings = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert_eq!(doctor.status.code(), Some(1));
    let finding = format!("BAD  function     {name}: 0 of 1 replicas ready: No such image");
    assert!(findings.contains(&finding), "{findings}");
}

#[test]
fn an_update_that_fails_is_rolled_back_and_exits_with_1_and_the_old_version_goes_on() {
    let Some(world) = World::new() else { return };
    let name = own_name("rolled");
    world.adopt(&name);
    told(
        world.gateway,
        &["deploy", &name, "--image", "skep/catservice"],
        "",
    );
    let args = ["deploy", &name, "--image", "skep-test/no-such-image"];
    let output = ask(world.gateway, &args, "");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    let says = format!("skep: {name}: rolled back: No such image");
    assert!(complaint.contains(&says), "{complaint}");
    assert_eq!(
        told(world.gateway, &["invoke", &name, "-d", "still here"], ""),
        "still here"
    );
}
