//! Functions whose images are in a registry that asks for a login: Debian's, which the test starts.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::client::{get, try_get};
use crate::support::gateway::{Folder, signal};
use crate::support::within;
use crate::world::{World, deployment, docker, free_port, own_name, try_docker};

/// Users of the registry, with their passwords and what these become in its file (bcrypt).
const ROBIN: [&str; 3] = [
    "robin",
    "open-sesame",
    "$2y$04$Z2cKqo7CWql1T4MV5PXruOTe6uxGFKT2jXWrGF.NWChDvVF.1n1LW",
];
const KIM: [&str; 3] = [
    "kim",
    "another-word",
    "$2y$04$e3WUnzvYmnlGnlwNr62iUuhitN56LQ0DdpfQZABAFrPhRr73d6X9W",
];

/// A registry with images that are nowhere else. It goes with its holder, and what the engine has of it.
struct Registry {
    folder: Folder,
    process: Child,
    repository: String,
}

impl Registry {
    /// Starts one that knows this user. `None`, after a line that says so, where there is none to start.
    fn start(user: [&str; 3]) -> Option<Self> {
        if Command::new("docker-registry")
            .arg("--version")
            .output()
            .is_err()
        {
            assert!(
                std::env::var_os("CI").is_none(),
                "docker-registry is missing, and in CI this must run"
            );
            eprintln!("SKIPPED: docker-registry is missing, so no login at a registry was tested");
            return None;
        }
        let (folder, address) = (Folder::new(), format!("127.0.0.1:{}", free_port()));
        let here = folder.0.display();
        let config = folder.write(
            "registry.yml",
            &format!(
                "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {here}/data}}}}\nhttp: {{addr: \"{address}\"}}\n\
                 auth: {{htpasswd: {{realm: test, path: {here}/users}}}}\nlog: {{level: warn}}\n"
            ),
        );
        let process = Command::new("docker-registry")
            .args(["serve", config.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let repository = format!("{address}/{}", own_name("private"));
        let registry = Self {
            folder,
            process,
            repository,
        };
        registry.knows(user);
        within(Duration::from_secs(10), "the registry answers", || {
            try_get(address.parse().unwrap(), "/v2/").is_some_and(|answer| answer.status == 401)
        });
        Some(registry)
    }

    /// Lets this user in, and nobody else.
    fn knows(&self, [user, _, hash]: [&str; 3]) {
        self.folder.write("users", &format!("{user}:{hash}\n"));
    }

    /// An image that is only here, by its tag and by its digest.
    fn image(&self, tag: &str, [user, password, _]: [&str; 3]) -> [String; 2] {
        let image = format!("{}:{tag}", self.repository);
        let config = self.folder.0.join("docker");
        let config = config.to_str().unwrap();
        let (host, _) = self.repository.split_once('/').unwrap();
        docker(&[
            "--config", config, "login", "-u", user, "-p", password, host,
        ]);
        docker(&["tag", "skep/catservice", &image]);
        let pushed = docker(&["--config", config, "push", &image]);
        let digest = pushed.split("digest: ").nth(1).unwrap();
        let digest = digest.split_whitespace().next().unwrap();
        docker(&["rmi", "--no-prune", &image]);
        [image, format!("{}@{digest}", self.repository)]
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        signal(self.process.id(), "KILL");
        let _ = self.process.wait();
        let filter = format!("reference={}", self.repository);
        let tags = "{{.Repository}}:{{.Tag}} {{.Repository}}@{{.Digest}}";
        // Without an engine there are none.
        let listed = try_docker(&["images", "--digests", "--filter", &filter, "--format", tags]);
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        for name in listed
            .split_whitespace()
            .filter(|name| !name.contains("<none>"))
        {
            // A container of the test may be on its way out.
            within(Duration::from_secs(30), "an image can go", || {
                let removed = try_docker(&["rmi", "--no-prune", name]);
                removed.status.success()
                    || String::from_utf8_lossy(&removed.stderr).contains("No such image")
            });
        }
    }
}

fn login([user, password, _]: [&str; 3]) -> Value {
    json!(STANDARD.encode(format!("{user}:{password}")))
}

#[test]
fn a_function_s_image_is_pulled_with_its_login_which_updates_keep_or_change() {
    // Goes after the world, whose functions have its images.
    let Some(registry) = Registry::start(ROBIN) else {
        return;
    };
    let Some(world) = World::new() else { return };
    let [by_tag, _] = registry.image("1", ROBIN);
    let name = world.create(&by_tag, json!({ "registryAuth": login(ROBIN) }));
    world.answers(&name);

    let updated_to = |image: &str, fields: Value| {
        let answer = world.send(
            "PUT",
            "/system/functions",
            &deployment(&name, image, fields),
        );
        assert_eq!(answer.status, 202, "{}", answer.text());
        within(Duration::from_secs(90), &format!("it runs {image}"), || {
            let state = "{{.UpdateStatus.State}}";
            docker(&["service", "inspect", "--format", state, &name]) == "completed"
        });
        assert_eq!(world.describe(&name)["image"], image);
    };
    let [_, by_digest] = registry.image("2", ROBIN);
    docker_forgets(&by_tag);
    updated_to(&by_digest, json!({ "envVars": { "A": "1" } }));
    let [third, _] = registry.image("3", ROBIN);
    docker_forgets(&by_digest);
    registry.knows(KIM);
    updated_to(&third, json!({ "registryAuth": login(KIM) }));
    world.answers(&name);

    for told in [
        world.gateway_log(),
        world.describe(&name).to_string(),
        get(world.gateway, "/system/functions").text(),
        get(world.gateway, &format!("/system/function/{name}/replicas")).text(),
        docker(&["service", "inspect", &name]),
    ] {
        for secret in [ROBIN, KIM]
            .map(|user| [user[1].to_owned(), login(user).to_string()])
            .concat()
        {
            assert!(!told.contains(secret.trim_matches('"')), "{told}");
        }
    }
}

/// The next task has to pull: what runs keeps its layers, but they are all that is left.
fn docker_forgets(image: &str) {
    docker(&["rmi", "--force", "--no-prune", image]);
}

#[test]
fn a_login_that_the_registry_refuses_is_a_400_and_nothing_is_half_done() {
    let Some(registry) = Registry::start(ROBIN) else {
        return;
    };
    let Some(world) = World::new() else { return };
    let [image, _] = registry.image("1", ROBIN);
    let wrong = ["robin", "hunter2", ""];
    let refused = |method: &str, name: &str, image: &str, user: [&str; 3], says: &str| {
        let wanted = deployment(name, image, json!({ "registryAuth": login(user) }));
        let answer = world.send(method, "/system/functions", &wanted);
        let told = answer.text();
        assert_eq!(answer.status, 400, "{told}");
        assert!(
            told.starts_with(says) && told.contains("nothing was changed"),
            "{told}"
        );
        assert!(!told.contains(user[1]), "{told}");
    };
    let nobody = own_name("fn");
    let missing = format!("{}:nosuch", registry.repository);
    refused("POST", &nobody, &image, wrong, "registryAuth:");
    refused("POST", &nobody, &image, KIM, "registryAuth:");
    refused("POST", &nobody, &missing, ROBIN, "image:");
    assert!(
        !try_docker(&["service", "inspect", &nobody])
            .status
            .success()
    );

    let name = world.create("skep/catservice", json!({}));
    let version = || {
        docker(&[
            "service",
            "inspect",
            "--format",
            "{{.Version.Index}} {{json .Spec}}",
            &name,
        ])
    };
    world.answers(&name);
    let before = version();
    refused("PUT", &name, &image, wrong, "registryAuth:");
    assert_eq!(version(), before);
    let unknown = deployment(&nobody, &image, json!({ "registryAuth": login(wrong) }));
    assert_eq!(
        world.send("PUT", "/system/functions", &unknown).status,
        404,
        "clients then make it"
    );
    assert!(!world.gateway_log().contains("hunter2"));

    // A registry that is away may be there for the nodes.
    let away = format!("127.0.0.1:{}/cat:1", free_port());
    world.adopt(&nobody);
    let unsure = deployment(&nobody, &away, json!({ "registryAuth": login(ROBIN) }));
    let answer = world.send("POST", "/system/functions", &unsure);
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(
        answer.text().contains("nobody knows whether"),
        "{}",
        answer.text()
    );
}

#[test]
fn a_login_is_not_shown_to_another_registry_when_the_image_moves_there() {
    let Some(registry) = Registry::start(ROBIN) else {
        return;
    };
    let Some(world) = World::new() else { return };
    let [image, _] = registry.image("1", ROBIN);
    let name = world.create(&image, json!({ "registryAuth": login(ROBIN) }));
    world.answers(&name);
    // A registry that asks for a login and lets nobody in.
    let asked = Arc::new(Mutex::new(Vec::<String>::new()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = format!("{}/cat:1", listener.local_addr().unwrap());
    let heads = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            // TLS is tried first.
            let mut first = [0];
            if stream.peek(&mut first).is_err() || first == [0x16] {
                continue;
            }
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap_or(0) > 0 {}
            heads.lock().unwrap().push(head.to_lowercase());
            let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"other\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.get_mut().write_all(refusal.as_bytes());
        }
    });
    let answer = world.send(
        "PUT",
        "/system/functions",
        &deployment(&name, &other, json!({})),
    );
    assert_eq!(answer.status, 202, "{}", answer.text());
    within(Duration::from_secs(90), "the update has failed", || {
        let state = "{{.UpdateStatus.State}}";
        docker(&["service", "inspect", "--format", state, &name]).contains("rollback")
    });
    let asked = asked.lock().unwrap();
    assert!(asked.iter().any(|head| head.contains("/v2/")), "{asked:?}");
    assert!(
        asked.iter().all(|head| !head.contains("authorization:")),
        "{asked:?}"
    );
}
