//! What the documents tell people to type, typed: names, networks and ports replaced by the test's own.

use std::process::Command;

use crate::support::client::get;
use crate::support::gateway::Folder;
use crate::world::{
    Swarm, World, docker, free_port, own_name, remove_network, repository, try_docker,
};

/// The shell blocks of a document that are marked with this word after `sh`.
fn blocks(document: &str, mark: &str) -> String {
    let text = std::fs::read_to_string(repository().join(document)).unwrap();
    let fence = format!("```sh {mark}\n");
    let found: Vec<_> = text
        .split(&fence)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(!found.is_empty(), "{document} has no block marked '{mark}'");
    found.join("\n")
}

fn shell(script: &str, folder: &std::path::Path) -> (bool, String) {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(folder)
        .output()
        .unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
    )
}

#[test]
fn the_readmes_quickstart_works_as_it_stands() {
    let Some(_swarm) = Swarm::join() else { return };
    let (network, gateway, cat, port) = (
        own_name("net"),
        own_name("gw"),
        own_name("cat"),
        free_port(),
    );
    let script = blocks("README.md", "quickstart")
        .replace("--attachable functions", &format!("--attachable {network}"))
        .replace("--network=functions", &format!("--network={network}"))
        .replace(
            "--name gateway",
            &format!("--name {gateway} -e network={network}"),
        )
        .replace("-p 8080:8080", &format!("-p 127.0.0.1:{port}:8080"))
        .replace("localhost:8080", &format!("127.0.0.1:{port}"))
        .replace("--name catservice", &format!("--name {cat}"))
        .replace("/function/catservice", &format!("/function/{cat}"))
        .replace("x-function: catservice", &format!("x-function: {cat}"));
    assert!(
        !script.contains("functions ") && !script.contains("8080:8080 "),
        "nothing of the reader's own is left: {script}"
    );
    // What the README shows beside the block: a look through the management API, with the password that was made.
    let look = format!(
        "\ncurl -fsS -u \"admin:$(docker exec {gateway} skep password)\" http://127.0.0.1:{port}/system/functions"
    );
    let (worked, told) = shell(&(script + &look), &repository());
    try_docker(&["service", "rm", &cat]);
    try_docker(&["rm", "-f", &gateway]);
    remove_network(&network);
    let hostname = std::fs::read_to_string("/etc/hostname").unwrap();
    assert!(worked, "{told}");
    assert_eq!(
        told.matches(hostname.trim()).count(),
        2,
        "both curls answer with the file: {told}"
    );
    let label = format!("\"faas_function\":\"{cat}\"");
    assert!(told.contains(&label), "{told}");
}

#[test]
fn the_guide_to_a_function_of_ones_own_ends_in_an_answer() {
    let Some(world) = World::new() else { return };
    let folder = Folder::new();
    let (service, image) = (own_name("greet"), own_name("image"));
    let script = blocks("docs/writing-functions.md", "run")
        .replace("busybox:1.36", "skep-test/busybox")
        .replace(
            "--network functions",
            &format!("--network {}", world.network),
        )
        .replace(
            "--network=functions",
            &format!("--network={}", world.network),
        )
        .replace("127.0.0.1:8080", &world.gateway.to_string())
        .replace("localhost:8080", &world.gateway.to_string());
    let script = with_own_names(&script, &service, &image);
    world.adopt(&service);
    // Docker's own notices and curl's progress go to stderr.
    let (worked, told) = shell(&format!("{{ {script} }} 2>&1 >answer"), &folder.0);
    let answer = std::fs::read_to_string(folder.0.join("answer")).unwrap();
    let status = get(world.gateway, &format!("/system/function/{service}")).status;
    docker(&["service", "rm", &service]);
    let gone = || try_docker(&["rmi", &image]).status.success();
    crate::support::within(
        std::time::Duration::from_secs(60),
        "its image can go once its container has",
        gone,
    );
    assert!(worked && status == 200, "{status} {told}\n{script}");
    assert!(answer.ends_with("Hello, Ada!\n"), "{answer}");
}

/// The guide calls its function and its image `greet`.
fn with_own_names(script: &str, service: &str, image: &str) -> String {
    script
        .replace("build -t greet", &format!("build -t {image}"))
        .replace("--name greet greet", &format!("--name {service} {image}"))
        .replace("/function/greet", &format!("/function/{service}"))
}
