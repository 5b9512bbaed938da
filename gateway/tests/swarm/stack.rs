//! The stack file, and every sample as a service.

use std::process::Command;
use std::time::Duration;

use crate::support::client::{get, post, try_get};
use crate::support::gateway::run as run_skep;
use crate::support::within;
use crate::world::{Swarm, World, docker, free_port, own_name, repository, try_docker};

#[test]
fn the_stack_comes_up_answers_is_watched_and_goes() {
    let Some(_swarm) = Swarm::join() else { return };
    let (stack, network) = (own_name("stack"), own_name("stacknet"));
    let (gateway_port, prometheus_port) = (free_port(), free_port());
    let run = |command: &str| {
        let output = Command::new(repository().join("images/stack.sh"))
            .args([command, &stack])
            .env("FUNCTIONS_NETWORK", &network)
            .env("GATEWAY_PORT", gateway_port.to_string())
            .env("PROMETHEUS_PORT", prometheus_port.to_string())
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let seen = std::panic::catch_unwind(|| {
        let (up, told) = run("up");
        assert!(up, "{told}");
        for url in [
            format!("curl -d hello http://localhost:{gateway_port}/function/catservice"),
            format!("http://localhost:{prometheus_port}"),
            format!("http://localhost:{gateway_port}/system/functions"),
            "skep password".to_owned(),
        ] {
            assert!(told.contains(&url), "{url} in {told}");
        }
        let gateway = ([127, 0, 0, 1], gateway_port).into();
        within(Duration::from_secs(20), "the gateway is ready", || {
            try_get(gateway, "/readyz").is_some_and(|answer| answer.status == 200)
        });
        for name in [format!("{stack}_catservice"), "catservice".to_owned()] {
            within(Duration::from_secs(20), &name, || {
                post(gateway, &format!("/function/{name}"), "hi").text() == "hi"
            });
        }
        assert_eq!(get(gateway, "/system/functions").status, 401);
        let filter = format!("label=com.docker.swarm.service.name={stack}_gateway");
        let container = docker(&["ps", "-q", "-f", &filter]);
        let password = docker(&["exec", &container, "skep", "password"]);
        let url = format!("http://admin:{password}@{gateway}");
        let listed = run_skep(&["ls", "--json", "--gateway", &url], &[]);
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
        let names: Vec<_> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|function| function["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [format!("{stack}_catservice"), format!("{stack}_nodeinfo")],
            "neither the gateway nor Prometheus is a function"
        );
        let prometheus = ([127, 0, 0, 1], prometheus_port).into();
        within(
            Duration::from_secs(60),
            "Prometheus has scraped the calls",
            || {
                let query = "/api/v1/query?query=gateway_function_invocation_total";
                try_get(prometheus, query)
                    .is_some_and(|answer| answer.text().contains("_catservice"))
            },
        );
    });
    let (down, told) = run("down");
    // The volumes outlive the stack on purpose; these are the test's own.
    for volume in ["prometheus", "gateway"] {
        within(Duration::from_secs(30), "the volume can be removed", || {
            let removed = try_docker(&["volume", "rm", &format!("{stack}_{volume}")]);
            removed.status.success()
                || String::from_utf8_lossy(&removed.stderr).contains("no such volume")
        });
    }
    seen.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    assert!(down, "{told}");
}

#[test]
fn a_stack_that_finds_its_network_or_port_taken_says_the_commands_that_make_way() {
    let Some(_swarm) = Swarm::join() else { return };
    let (stack, network) = (own_name("stack"), own_name("quicknet"));
    let (container, service) = (own_name("quickgateway"), own_name("quickcat"));
    let (port, prometheus_port) = (free_port().to_string(), free_port().to_string());
    docker(&[
        "network",
        "create",
        "-d",
        "overlay",
        "--attachable",
        &network,
    ]);
    let published = format!("{port}:8080");
    let socket = "/var/run/docker.sock:/var/run/docker.sock";
    // As the README's quickstart leaves them.
    docker(&[
        "run",
        "-d",
        "--name",
        &container,
        "-v",
        socket,
        "-p",
        &published,
        "--network",
        &network,
        "-e",
        &format!("network={network}"),
        "skep/gateway",
    ]);
    docker(&[
        "service",
        "create",
        "--name",
        &service,
        "--network",
        &network,
        "skep/catservice",
    ]);
    let up = |network: &str| {
        let output = Command::new(repository().join("images/stack.sh"))
            .args(["up", &stack])
            .envs([
                ("FUNCTIONS_NETWORK", network),
                ("GATEWAY_PORT", &port),
                ("PROMETHEUS_PORT", &prometheus_port),
            ])
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), told)
    };
    let (code, told) = up(&network);
    let (other_code, other) = up(&own_name("stacknet"));
    let commands = |told: &str| -> String {
        let list = told.split("bring the stack up again:\n").nth(1);
        let lines = list.unwrap_or_default().lines();
        let before = lines.take_while(|line| line.trim() != "make up");
        before.map(|line| format!("{line}\n")).collect()
    };
    // Its commands are carried out as they are, and what they leave is removed before anything is looked at.
    let removed = Command::new("timeout")
        .args(["60", "bash", "-c", &commands(&told)])
        .output()
        .unwrap();
    let left = try_docker(&["network", "inspect", &network]);
    try_docker(&["rm", "--force", &container]);
    try_docker(&["service", "rm", &service]);
    try_docker(&["network", "rm", &network]);
    assert_eq!((code, other_code), (Some(1), Some(1)), "{told}{other}");
    let holder = format!("port {port} is taken by the container {container}");
    for part in [&network, &service, &holder] {
        assert!(told.contains(part.as_str()), "{part} in {told}");
    }
    let settings = format!("FUNCTIONS_NETWORK={stack}-functions GATEWAY_PORT=");
    assert!(told.contains(&settings), "{told}");
    assert!(removed.status.success(), "{told}{removed:?}");
    assert!(!left.status.success(), "the network is gone");
    let removal = format!("docker rm --force {container}\n");
    assert_eq!(commands(&other).trim_start(), removal, "{other}");
}

#[test]
fn every_sample_answers_as_a_service_what_is_stored_beside_it() {
    let Some(world) = World::new() else { return };
    let folder = repository().join("sample-functions");
    let images = docker(&["image", "ls", "--format", "{{.Repository}}", "skep/*"]);
    let (mut checked, mut skipped) = (0, Vec::new());
    let mut samples = Vec::new();
    for entry in std::fs::read_dir(&folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().is_dir())
    {
        let sample = entry.unwrap().file_name().into_string().unwrap();
        if images
            .lines()
            .any(|image| image == format!("skep/{sample}"))
        {
            samples.push((world.service(&format!("skep/{sample}"), &[]), sample));
        } else {
            skipped.push(sample);
        }
    }
    for (service, sample) in samples {
        let path = format!("/function/{service}");
        within(Duration::from_secs(90), &sample, || {
            ![404, 502, 503].contains(&post(world.gateway, &path, "0").status)
        });
        let url = format!("http://{}{path}", world.gateway);
        let output = Command::new(folder.join("check.sh"))
            .args(["-w", &url, &sample])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        checked += 1;
    }
    if !skipped.is_empty() {
        eprintln!("SKIPPED SAMPLES, no image: {skipped:?}");
        assert!(std::env::var_os("CI").is_none(), "in CI every sample runs");
    }
    assert!(checked >= 9, "{checked} samples were checked");
}
