//! The client commands on a Swarm: deploy, look, change a secret, remove.

use std::time::Duration;

use crate::support::gateway::{Folder, ask, told};
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
        format!("secret {key} is made\n")
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
    assert!(deployed.contains("is made"), "{deployed}");
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
        .contains("is changed")
    );
    told(world.gateway, &["secret", "update", &key], "second");
    within(Duration::from_secs(60), "the new value is seen", || {
        told(world.gateway, &["invoke", &name], "") == "second"
    });
    assert!(told(world.gateway, &["describe", &name], "").contains("endpoint"));
    within(Duration::from_secs(30), "its logs are shown", || {
        told(world.gateway, &["logs", &name], "").contains("Forking fprocess")
    });
    assert_eq!(
        told(world.gateway, &["rm", &name], ""),
        format!("{name} is removed\n")
    );
    assert!(!try_docker(&["service", "inspect", &name]).status.success());
    assert_eq!(
        told(world.gateway, &["secret", "rm", &key], ""),
        format!("secret {key} is removed\n")
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
