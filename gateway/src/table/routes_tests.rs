use super::*;
use crate::function::{Deployment, Handling, Limits, Replicas, Rollout, Spec};
use crate::metrics::Metrics;
use crate::table::{Listing, Table, TableWriter};

/// A function that wants a route, written as `host/path`, and was made at that time.
fn wants(name: &str, route: &str, strip: bool, made: Option<&str>) -> Deployment {
    let (host, path) = route.split_at(route.find('/').unwrap());
    let label = |label: &str| match label {
        "skep.route.host" => Some(host).filter(|host| !host.is_empty()),
        "skep.route.path" => Some(path),
        "skep.route.strip" => Some(if strip { "true" } else { "false" }),
        _ => None,
    };
    let spec = Spec {
        created_at: made.map(str::to_owned),
        ..Spec::default()
    };
    Deployment {
        name: FunctionName::new(name).unwrap(),
        short_name: None,
        spec,
        limits: Limits::default(),
        handling: Handling::default(),
        route: OwnRoute::read(label),
        replicas: Replicas::default(),
        rollout: Rollout::default(),
        addresses: Vec::new(),
        unhealthy: Vec::new(),
    }
}

fn publish(functions: Vec<Deployment>) -> Table {
    let table = Table::default();
    assert!(table.may_have_routes(), "nobody knows yet");
    let mut writer = TableWriter::new(table.clone(), Arc::new(Metrics::new()), 1);
    writer.publish(Listing {
        subnets: Default::default(),
        functions,
        elsewhere: Vec::new(),
        settled: true,
    });
    table
}

/// `name rest`, `-` where nothing is, and nothing where it is nobody's own.
fn found(table: &Table, host: &str, path: &str) -> String {
    match table.own(host.as_bytes(), path) {
        Some(Own::Function(name, cut)) => format!("{name} {}", &path[cut..]),
        Some(Own::Nothing) => "-".to_owned(),
        None => String::new(),
    }
}

#[test]
fn the_longest_path_wins_and_a_host_is_wholly_its_owners() {
    let table = publish(vec![
        wants("shop", "shop.example/", true, None),
        wants("cart", "shop.example/cart", true, None),
        wants("api", "api.example/v1/deep", false, None),
        wants("blog", "/blog", true, None),
        wants("feed", "/blog/feed", false, None),
    ]);
    assert!(table.may_have_routes());
    for (host, path, owner) in [
        ("shop.example", "/", "shop /"),
        (
            "shop.example",
            "/system/functions",
            "shop /system/functions",
        ),
        ("shop.example", "/function/blog", "shop /function/blog"),
        ("shop.example", "/healthz", "shop /healthz"),
        ("shop.example", "/blog", "shop /blog"),
        ("shop.example", "/cart", "cart "),
        ("shop.example", "/cart/", "cart /"),
        ("shop.example", "/cart/a/b", "cart /a/b"),
        ("shop.example", "/carts", "shop /carts"),
        ("api.example", "/v1/deep/x", "api /v1/deep/x"),
        ("api.example", "/v1", "-"),
        ("api.example", "/", "-"),
        ("api.example", "/blog", "-"),
        ("api.example", "/metrics", "-"),
        ("api.example", "*", "-"),
        ("api.example", "", "-"),
        ("other.example", "/blog", "blog "),
        ("other.example", "/blog/x", "blog /x"),
        ("other.example", "/blog/feed", "feed /blog/feed"),
        ("other.example", "/blog/feed/1", "feed /blog/feed/1"),
        ("other.example", "/blog/feeds", "blog /feeds"),
        ("other.example", "/", ""),
        ("other.example", "/system/functions", ""),
        ("", "/blog", "blog "),
        ("", "/cart", ""),
    ] {
        assert_eq!(found(&table, host, path), owner, "{host} {path}");
    }
}

#[test]
fn a_host_is_compared_as_a_name_without_its_port() {
    let table = publish(vec![wants("shop", "shop.example/", true, None)]);
    for host in [
        "shop.example",
        "SHOP.Example",
        "shop.example:80",
        "shop.example:",
        "shop.example.",
        "shop.example.:8080",
    ] {
        assert_eq!(found(&table, host, "/"), "shop /", "{host}");
    }
    for host in [
        "",
        "example",
        "xshop.example",
        "shop.example.com",
        "a.shop.example",
        "shop.example..",
        "shop.example:80:80",
        "shop.example:8x",
        "shop%2eexample",
        "[shop.example]",
        "::1",
        &"a.".repeat(500),
        "shop.ex\u{e4}mple",
    ] {
        assert_eq!(found(&table, host, "/"), "", "{host}");
    }
    assert_eq!(table.own(b"shop.example\xff", "/"), None);
}

#[test]
fn a_path_is_compared_as_it_came() {
    let table = publish(vec![wants("shop", "/shop", true, None)]);
    for path in [
        "/SHOP",
        "/shop%2f",
        "/shop%2Fx",
        "/shop;x",
        "/shop;x/y",
        "//shop",
        "/./shop",
        "/x/../shop",
        "/%73hop",
        "/shop%00",
        "/shop\\x",
        "/shopping",
        "/sho",
        "shop",
        "/shop.",
        "/shop~",
        "/shop%20",
    ] {
        assert_eq!(found(&table, "h", path), "", "{path}");
    }
    for (path, rest) in [
        ("/shop/../system/info", "/../system/info"),
        ("/shop/%2e%2e/", "/%2e%2e/"),
        ("/shop//x", "//x"),
        ("/shop/;x", "/;x"),
    ] {
        assert_eq!(
            found(&table, "h", path),
            format!("shop {rest}"),
            "the rest is the function's business"
        );
    }
}

#[test]
fn a_request_costs_no_more_than_the_longest_route() {
    let table = publish(vec![wants(
        "deep",
        &format!("/{}", "a/".repeat(100)),
        true,
        None,
    )]);
    let long = format!("/{}", "b".repeat(60_000)) + &"/".repeat(5000);
    assert_eq!(found(&table, "h", &long), "");
}

#[test]
fn of_two_who_want_the_same_the_older_has_it() {
    let (older, later) = ("2026-11-23T01:02:47.49Z", "2026-11-23T01:02:47.491815102Z");
    for (functions, owner) in [
        ([("b", Some(older)), ("a", Some(later))], "b"),
        ([("b", Some(later)), ("a", Some(older))], "a"),
        ([("b", Some(older)), ("a", Some(older))], "a"),
        ([("b", Some(later)), ("a", None)], "b"),
        ([("b", None), ("a", None)], "a"),
    ] {
        for turned in [false, true] {
            let mut all: Vec<_> = functions
                .map(|(name, made)| wants(name, "shop.example/x", true, made))
                .into();
            if turned {
                all.reverse();
            }
            let route = all[0].route.clone().unwrap().unwrap();
            let table = publish(all);
            let snapshot = table.snapshot();
            assert_eq!(snapshot.routes().owner(&route).unwrap().as_str(), owner);
            assert_eq!(snapshot.routes().clashes(), 1);
            assert_eq!(found(&table, "shop.example", "/x"), format!("{owner} "));
        }
    }
}

#[test]
fn where_nobody_has_a_route_nothing_is_looked_up() {
    let mut broken = wants("broken", "/system", true, None);
    assert!(broken.route.is_err());
    assert!(!publish(vec![broken.clone()]).may_have_routes());
    broken.route = Ok(None);
    assert!(!publish(vec![broken]).may_have_routes());
}
