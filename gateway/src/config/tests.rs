//! Settings as they are read, and every mistake in them.

use super::*;

fn read(mode: Mode, flags: &[(&str, &str)], env: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let flags = flags
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Config::read(mode, &flags, |name| {
        env.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn works_without_a_word() {
    let config = read(Mode::Swarm, &[], &[]).unwrap();
    assert_eq!(
        (config.port, config.metrics_port, config.network.as_str()),
        (Some(8080), Some(8082), "functions")
    );
    assert!(config.workers >= 1);
    let local = read(Mode::Local, &[], &[]).unwrap();
    assert!(local.bind.is_loopback() && local.metrics_port.is_none());
    assert_eq!(
        (config.data_dir, local.data_dir),
        (Some("/var/lib/skep".into()), None)
    );
}

#[test]
fn a_flag_beats_the_environment() {
    let config = read(
        Mode::Swarm,
        &[("port", "1")],
        &[("port", "2"), ("upstream_timeout", "5m")],
    )
    .unwrap();
    assert_eq!(
        (config.port, config.upstream_timeout),
        (Some(1), Duration::from_secs(300))
    );
}

#[test]
fn reports_every_mistake_at_once() {
    let wrong = [
        ("port", "http"),
        ("upstream_timeout", "soon"),
        ("DOCKER_HOST", "here"),
        ("log_format", "xml"),
        ("network", "a/b"),
        ("log_level", "a=b=c"),
    ];
    let mistakes = read(Mode::Swarm, &[("idle-timeout", "0")], &wrong).unwrap_err();
    assert_eq!(mistakes.len(), 7, "{mistakes:?}");
    for name in [
        "port=http",
        "upstream_timeout=soon",
        "DOCKER_HOST=here",
        "log_format=xml",
        "network=a/b",
        "--idle-timeout=0",
        "log_level=",
    ] {
        assert!(
            mistakes.iter().any(|line| line.starts_with(name)),
            "{name} in {mistakes:?}"
        );
    }
}

#[test]
fn shows_where_a_value_comes_from_and_hides_secrets() {
    let env =
        |name: &str| (name == "DOCKER_HOST").then(|| "tcp://me:hunter2@proxy:2375".to_owned());
    let shown = Config::show(
        Mode::Swarm,
        &HashMap::from([("port".to_owned(), "1".to_owned())]),
        env,
    );
    let of = |env| shown.iter().find(|shown| shown.env == env).unwrap();
    assert_eq!(
        (
            of("port").source,
            of("network").source,
            of("DOCKER_HOST").source
        ),
        ("flag", "default", "environment")
    );
    assert_eq!(of("DOCKER_HOST").value, "tcp://me:***@proxy:2375");
    let password = HashMap::from([(PASSWORD.to_owned(), "hunter2".to_owned())]);
    let shown = Config::show(Mode::Swarm, &password, |_| None);
    assert!(shown.iter().all(|shown| shown.value != "hunter2"));
}
