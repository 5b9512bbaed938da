//! Names that others have, too: short names of stacks, secrets of Docker's and of other gateways.

use std::time::Duration;

use serde_json::json;

use crate::support::client::{get, post};
use crate::support::within;
use crate::world::{Secret, World, deployment, docker, own_name, try_docker};

/// A stack's service with a short name, which answers with its full one.
fn service(world: &World, stack: &str, short: &str) -> String {
    let name = format!("{stack}_{short}");
    let (namespace, fprocess) = (
        format!("com.docker.stack.namespace={stack}"),
        format!("fprocess=echo {name}"),
    );
    docker(&[
        "service",
        "create",
        "--detach",
        "--no-resolve-image",
        "--name",
        &name,
        "--label",
        &namespace,
        "--env",
        &fprocess,
        "--network",
        &world.network,
        "skep/catservice",
    ]);
    world.adopt(&name);
    world.answers(&name);
    name
}

#[test]
fn a_short_name_stays_with_the_function_that_was_made_first() {
    let Some(mut world) = World::new() else {
        return;
    };
    let (short, stacks) = (own_name("cat"), [own_name("z"), own_name("a")]);
    let first = service(&world, &stacks[0], &short);
    let path = format!("/function/{short}");
    let answered = |world: &World| get(world.gateway, &path).text().trim().to_owned();
    assert_eq!(answered(&world), first);
    let second = service(&world, &stacks[1], &short);
    assert_eq!(answered(&world), first, "not the one that came later");
    world.gateway_logs(&format!("is held by '{first}'"));
    world.restart_gateway();
    world.answers(&second);
    assert_eq!(answered(&world), first, "also after a restart");
    let new = deployment(&short, "skep/catservice", json!({}));
    let refused = world.send("POST", "/system/functions", &new);
    assert_eq!(refused.status, 409, "{}", refused.text());
    world.remove(&first);
    within(Duration::from_secs(10), "the other one has it", || {
        answered(&world) == second
    });
}

/// One of Docker's own, which goes with its holder.
pub(crate) struct DockersSecret(pub(crate) String);

impl Drop for DockersSecret {
    fn drop(&mut self) {
        within(Duration::from_secs(30), "the secret can go", || {
            let removed = try_docker(&["secret", "rm", &self.0]);
            removed.status.success()
                || String::from_utf8_lossy(&removed.stderr).contains("not found")
        });
    }
}

pub(crate) fn dockers_secret(value: &str) -> DockersSecret {
    let name = own_name("dockers");
    let folder = std::env::temp_dir().join(&name);
    std::fs::write(&folder, value).unwrap();
    docker(&["secret", "create", &name, folder.to_str().unwrap()]);
    std::fs::remove_file(folder).unwrap();
    DockersSecret(name)
}

#[test]
fn a_secret_of_dockers_is_used_by_name_unless_it_is_infrastructures() {
    if !try_docker(&["secret", "ls"]).status.success() {
        return;
    }
    let (free, taken) = (dockers_secret("by hand"), dockers_secret("a password"));
    let Some(world) = World::new() else { return };
    world.service_off_network("skep/catservice", &["--secret", &taken.0]);
    let read = format!("cat /var/openfaas/secrets/{}", free.0);
    let fields = json!({ "secrets": [free.0], "envProcess": read });
    let name = world.create("skep/catservice", fields);
    world.answers(&name);
    let path = format!("/function/{name}");
    assert_eq!(post(world.gateway, &path, "").text(), "by hand");
    assert_eq!(world.describe(&name)["secrets"], json!([free.0]));
    for secret in [&taken.0, &own_name("none")] {
        let fields = json!({ "secrets": [secret] });
        let asked = deployment(&own_name("fn"), "skep/catservice", fields);
        let refused = world.send("POST", "/system/functions", &asked);
        assert_eq!(refused.status, 400, "{}", refused.text());
    }
    let listed = get(world.gateway, "/system/secrets").text();
    assert!(
        !listed.contains(&free.0),
        "it is not the gateway's: {listed}"
    );
}

#[test]
fn two_gateways_on_one_swarm_do_not_share_secrets() {
    let secret = Secret::named();
    let (Some(one), Some(other)) = (World::new(), World::new()) else {
        return;
    };
    let key = json!({ "name": secret.0, "value": "v" });
    let named = |world: &World| {
        get(world.gateway, "/system/secrets")
            .text()
            .contains(&secret.0)
    };
    for verb in ["POST", "PUT"] {
        let made = one.send(verb, "/system/secrets", &key);
        assert!(made.status < 300, "{}", made.text());
    }
    assert!(named(&one) && !named(&other));
    for verb in ["PUT", "DELETE"] {
        let refused = other.send(verb, "/system/secrets", &key);
        assert_eq!(refused.status, 404, "{verb}: {}", refused.text());
    }
    let made = other.send("POST", "/system/secrets", &key);
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(one.send("DELETE", "/system/secrets", &key).status, 200);
    assert!(!named(&one) && named(&other));
}
