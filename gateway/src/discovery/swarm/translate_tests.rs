//! Translation of JSON recorded from an engine (20.10.24: two replicas of `rec_echo` on the network, `lonely` off it).

use std::time::Duration;

use serde_json::{Value, json};

use super::*;

fn recorded(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

struct World {
    services: Value,
    tasks: Value,
    network: Network,
    require_label: bool,
    own_address: IpAddr,
    started: Vec<&'static str>,
    unhealthy: Vec<String>,
}

impl World {
    fn new() -> Self {
        Self {
            services: recorded(include_str!("../../../tests/recorded/services.json")),
            tasks: recorded(include_str!("../../../tests/recorded/tasks.json")),
            network: serde_json::from_str(include_str!("../../../tests/recorded/network.json"))
                .unwrap(),
            require_label: false,
            own_address: [10, 0, 1, 200].into(),
            started: Vec::new(),
            unhealthy: Vec::new(),
        }
    }

    fn service(&mut self, name: &str) -> &mut Value {
        self.services
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .find(|service| service["Spec"]["Name"] == name)
            .unwrap()
    }

    fn echo_task(&mut self) -> &mut Value {
        let id = self.service("rec_echo")["ID"].clone();
        self.tasks
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .find(|task| task["ServiceID"] == id)
            .unwrap()
    }

    fn list(&self) -> (Listing, Vec<Warning>) {
        let services: Vec<Service> = serde_json::from_value(self.services.clone()).unwrap();
        let tasks: Vec<Task> = serde_json::from_value(self.tasks.clone()).unwrap();
        let is_started = |id: &str| self.started.contains(&id);
        let place = Place {
            network: &self.network,
            own_address: self.own_address,
            require_label: self.require_label,
            is_started: &is_started,
            is_unhealthy: &|id| self.unhealthy.iter().any(|one| one == id),
            errors: &HashMap::new(),
        };
        listing(&services, &tasks, &place)
    }

    fn echo(&self) -> Deployment {
        self.list().0.functions.remove(0)
    }
}

#[test]
fn a_service_on_the_network_is_a_function_with_its_tasks_addresses() {
    let (listing, _) = World::new().list();
    let [echo] = listing.functions.as_slice() else {
        panic!("{listing:?}")
    };
    assert_eq!(
        (
            echo.name.as_str(),
            echo.short_name.as_ref().unwrap().as_str()
        ),
        ("rec_echo", "echo")
    );
    assert_eq!(
        echo.replicas,
        Replicas {
            desired: 2,
            running: 2,
            starting: 0
        }
    );
    assert_eq!(echo.limits.timeout, Some(Duration::from_secs(90)));
    assert_eq!(echo.addresses.len(), 2);
    assert!(
        echo.addresses
            .iter()
            .all(|address| address.socket.port() == 8080 && address.socket.is_ipv4())
    );
    assert!(listing.settled);
}

#[test]
fn what_the_operator_wrote_is_told_back() {
    let spec = World::new().echo().spec;
    assert_eq!(spec.env_process.as_deref(), Some("cat"));
    assert_eq!(
        spec.env_vars,
        BTreeMap::from([("A".to_owned(), "b=c".to_owned())])
    );
    assert_eq!(
        (spec.limits.memory.as_deref(), spec.limits.cpu.as_deref()),
        (Some("40Mi"), Some("500m"))
    );
    assert_eq!(spec.constraints, ["node.role==manager"]);
    assert!(spec.image.starts_with("rec-test"));
    assert!(spec.created_at.unwrap().starts_with("20"));
}

#[test]
fn a_broken_label_is_ignored_with_a_warning_that_names_service_and_label() {
    let (listing, warnings) = World::new().list();
    assert_eq!(listing.functions[0].addresses[0].socket.port(), 8080);
    let [(service, label, why)] = warnings.as_slice() else {
        panic!("{warnings:?}")
    };
    assert_eq!(
        (service.as_str(), label.as_ref()),
        ("rec_echo", "skep.port")
    );
    assert!(why.contains("'nonsense'"), "{why}");
}

#[test]
fn a_misspelt_label_of_a_service_is_warned_of_with_the_near_name() {
    let mut world = World::new();
    let services = world.services.as_array_mut().unwrap();
    let is_echo = |service: &&mut Value| service["Spec"]["Name"] == "rec_echo";
    let echo = services.iter_mut().find(is_echo).unwrap();
    let labels = echo["Spec"]["Labels"].as_object_mut().unwrap();
    for label in [
        "skep.timeuot",
        "skep.managed",
        "skep.asked.limits.memory",
        "team",
    ] {
        labels.insert(label.to_owned(), "5s".into());
    }
    let (_, warnings) = world.list();
    let unknown: Vec<_> = warnings
        .iter()
        .filter(|(_, _, why)| why.contains("not known"))
        .collect();
    let [(service, label, why)] = unknown.as_slice() else {
        panic!("{warnings:?}")
    };
    assert_eq!(
        (service.as_str(), label.as_ref()),
        ("rec_echo", "skep.timeuot")
    );
    assert!(why.ends_with("did you mean skep.timeout?"), "{why}");
}

#[test]
fn a_service_off_the_network_says_how_to_attach_it() {
    let (listing, _) = World::new().list();
    let [(name, sentence)] = listing.elsewhere.as_slice() else {
        panic!("{listing:?}")
    };
    assert_eq!(name.as_str(), "lonely");
    assert!(
        sentence.contains("docker service update --network-add functions lonely"),
        "{sentence}"
    );
}

#[test]
fn only_tasks_that_are_told_to_run_and_do_are_addresses() {
    let mut world = World::new();
    world.echo_task()["DesiredState"] = json!("shutdown");
    let (listing, _) = world.list();
    assert_eq!(
        listing.functions[0].addresses.len(),
        1,
        "a task told to stop leaves at once"
    );
    assert!(!listing.settled);

    let mut world = World::new();
    world.echo_task()["Status"]["State"] = json!("preparing");
    assert_eq!(world.echo().addresses.len(), 1);
    assert_eq!(world.echo().replicas.starting, 1);
}

#[test]
fn a_starting_task_is_an_address_once_its_container_started() {
    let mut world = World::new();
    let id: &'static str = Box::leak(
        world.echo_task()["ID"]
            .as_str()
            .unwrap()
            .to_owned()
            .into_boxed_str(),
    );
    world.echo_task()["Status"]["State"] = json!("starting");
    assert_eq!(world.echo().addresses.len(), 1);
    world.started.push(id);
    assert_eq!(world.echo().addresses.len(), 2);
}

#[test]
fn a_task_whose_health_check_fails_stays_an_address_and_is_called_last() {
    let mut world = World::new();
    let id = world.echo_task()["ID"].as_str().unwrap().to_owned();
    assert!(world.echo().unhealthy.is_empty());
    world.unhealthy.push(id.clone());
    let echo = world.echo();
    assert_eq!(echo.addresses.len(), 2);
    assert_eq!(echo.unhealthy, [id.as_str().into()]);
}

#[test]
fn a_task_whose_restart_is_delayed_is_on_its_way_and_cannot_be_dialled() {
    let mut world = World::new();
    world.echo_task()["DesiredState"] = json!("ready");
    world.echo_task()["Status"]["State"] = json!("ready");
    let echo = world.echo();
    assert_eq!((echo.replicas.starting, echo.addresses.len()), (1, 1));
    assert!(!world.list().0.settled);
}

#[test]
fn a_global_service_without_tasks_waits_for_one() {
    let mut world = World::new();
    world.tasks = json!([]);
    world.service("rec_echo")["Spec"]["Mode"] = json!({ "Global": {} });
    let (listing, _) = world.list();
    assert_eq!(listing.functions[0].replicas.desired, 1);
    assert!(!listing.settled);
}

#[test]
fn a_service_without_tasks_keeps_its_route() {
    let mut world = World::new();
    world.tasks = json!([]);
    world.service("rec_echo")["Spec"]["Mode"]["Replicated"]["Replicas"] = json!(0);
    let (listing, _) = world.list();
    assert!(listing.functions[0].addresses.is_empty());
    assert!(listing.settled, "zero of zero is settled");
}

#[test]
fn labels_opt_out_and_in() {
    let mut world = World::new();
    world.service("rec_echo")["Spec"]["Labels"]["skep.enable"] = json!("false");
    assert!(world.list().0.functions.is_empty());

    let mut world = World::new();
    world.require_label = true;
    assert!(world.list().0.functions.is_empty());
    for label in ["com.openfaas.function", "function"] {
        let mut world = World::new();
        world.require_label = true;
        world.service("rec_echo")["Spec"]["TaskTemplate"]["ContainerSpec"]["Labels"] =
            json!({ label: "x" });
        assert_eq!(
            world.list().0.functions.len(),
            1,
            "{label} on the container"
        );
    }
}

#[test]
fn the_gateway_never_lists_itself_and_jobs_are_no_functions() {
    let mut world = World::new();
    let own = world.echo_task()["NetworksAttachments"][0]["Addresses"][0]
        .as_str()
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    world.own_address = own.parse().unwrap();
    assert!(world.list().0.functions.is_empty());

    let mut world = World::new();
    world.service("rec_echo")["Spec"]["Mode"] = json!({ "ReplicatedJob": { "MaxConcurrent": 1 } });
    assert!(world.list().0.functions.is_empty());
}

#[test]
fn unknown_fields_states_and_modes_of_newer_engines_are_no_trouble() {
    let mut world = World::new();
    world.service("rec_echo")["Spec"]["Novelty"] = json!({ "deep": [1, 2] });
    world.service("rec_echo")["UpdateStatus"] = json!({ "State": "pondering", "StartedAt": "x" });
    world.echo_task()["Status"]["State"] = json!("levitating");
    assert_eq!(world.echo().addresses.len(), 1);
}

#[test]
fn addresses_are_told_from_subnets() {
    for (subnet, address, inside) in [
        ("10.0.1.0/24", "10.0.1.9", true),
        ("10.0.1.0/24", "10.0.2.9", false),
        ("0.0.0.0/0", "10.0.2.9", true),
        ("fd00::/8", "fd12::1", true),
        ("fd00::/8", "10.0.0.1", false),
        ("nonsense", "10.0.0.1", false),
        ("10.0.0.0/99", "10.0.0.1", false),
    ] {
        let subnets = Networks::of_subnets([subnet].into_iter());
        let is_inside = subnets.trust(address.parse().unwrap());
        assert_eq!(is_inside, inside, "{subnet} {address}");
    }
}
