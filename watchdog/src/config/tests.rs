//! What the configuration makes of its variables.

use super::*;

fn read_pairs(pairs: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    read(|name| {
        pairs
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = read_pairs(&[("fprocess", "cat")]).unwrap();
    assert_eq!(config.command, ["cat"]);
    assert_eq!(config.exec_timeout, None);
    assert_eq!(config.read_timeout, Some(Duration::from_secs(30)));
    assert_eq!(config.write_timeout, Some(Duration::from_secs(30)));
    assert_eq!(config.healthcheck_interval, Duration::from_secs(30));
    assert!(config.combine_output && config.cgi_headers && config.lock_file);
    assert!(
        !config.write_debug
            && !config.marshal_request
            && !config.debug_headers
            && !config.inherit_listener
    );
    assert_eq!(
        (config.port, config.max_in_flight, config.held_output),
        (8080, None, 65536)
    );
    assert!(config.warnings.is_empty());
}

#[test]
fn healthcheck_interval_follows_write_timeout() {
    let config = read_pairs(&[("fprocess", "cat"), ("write_timeout", "7")]).unwrap();
    assert_eq!(config.healthcheck_interval, Duration::from_secs(7));
}

#[test]
fn function_process_wins() {
    let config = read_pairs(&[("fprocess", "cat"), ("function_process", "wc -c")]).unwrap();
    assert_eq!(config.command, ["wc", "-c"]);
}

#[test]
fn only_lowercase_true_is_true_and_oddities_are_said() {
    let config = read_pairs(&[
        ("fprocess", "cat"),
        ("cgi_headers", "1"),
        ("combine_output", "TRUE"),
        ("write_debug", "true"),
    ])
    .unwrap();
    assert!(!config.cgi_headers && !config.combine_output && config.write_debug);
    assert_eq!(config.warnings.len(), 2);
    assert!(
        config
            .warnings
            .iter()
            .any(|line| line.contains("cgi_headers=1")),
        "{:?}",
        config.warnings
    );
}

#[test]
fn values_that_cannot_be_read_fall_back_with_a_warning() {
    let pairs = [
        ("fprocess", "cat"),
        ("exec_timeout", "soon"),
        ("port", "99999"),
        ("metrics_port", "on"),
        ("max_inflight", "-1"),
        ("content_type", "a\nb"),
    ];
    let config = read_pairs(&pairs).unwrap();
    assert_eq!(
        (config.exec_timeout, config.port, config.max_in_flight),
        (None, 8080, None)
    );
    assert_eq!(config.metrics_port, Some(8081));
    for name in [
        "exec_timeout=soon",
        "port=99999",
        "metrics_port=on",
        "max_inflight=-1",
        "content_type=",
    ] {
        assert!(
            config.warnings.iter().any(|line| line.contains(name)),
            "{name}: {:?}",
            config.warnings
        );
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let mistakes = read_pairs(&[
        ("mode", "afterburn"),
        ("jwt_auth", "true"),
        ("skep_inherit", "7"),
    ])
    .unwrap_err();
    assert_eq!(mistakes.len(), 4, "{mistakes:?}");
    let is_named = |name: &str| mistakes.iter().any(|line| line.starts_with(name));
    assert!(is_named("fprocess is not set") && is_named("mode=afterburn"));
}

#[test]
fn a_mode_that_is_none_is_the_functions_own_variable() {
    let config = read_pairs(&[("fprocess", "cat"), ("mode", "debug")]).unwrap();
    assert_eq!(config.mode, Mode::Classic);
    let warning = &config.warnings[0];
    assert!(
        warning.contains("mode=debug") && config.warnings.len() == 1,
        "{:?}",
        config.warnings
    );
}

#[test]
fn the_lock_file_follows_tmpdir() {
    assert_eq!(lock_path(|_| None), PathBuf::from("/tmp/.lock"));
    assert_eq!(
        lock_path(|name| (name == "TMPDIR").then(|| "/run".to_owned())),
        PathBuf::from("/run/.lock")
    );
    assert_eq!(
        lock_path(|name| Some(name.to_owned())),
        PathBuf::from("skep_lock_dir/.lock")
    );
}

#[test]
fn the_help_names_every_variable() {
    let text = help();
    for variable in VARIABLES {
        assert!(text.contains(variable.name), "{}", variable.name);
    }
}

#[test]
fn the_documentation_has_every_variable_with_its_default() {
    let plain = |text: &str| text.replace(['`', '(', ')'], "").replace("= ", "");
    let page = plain(include_str!("../../../docs/watchdog.md"));
    for variable in VARIABLES {
        let row = format!("| {} | {} |", variable.name, plain(variable.default));
        assert!(page.contains(&row), "{row}");
    }
}

#[test]
fn metrics_have_a_port_any_port_or_none() {
    let port = |value| {
        let config = read_pairs(&[("fprocess", "cat"), ("metrics_port", value)]).unwrap();
        (config.metrics_port, config.warnings.len())
    };
    assert_eq!(port(""), (Some(8081), 0));
    assert_eq!(port("0"), (Some(0), 0));
    assert_eq!(port("9100"), (Some(9100), 0));
    assert_eq!(port("off"), (None, 0));
}

#[test]
fn the_longest_line_has_bounds_and_must_be_a_number() {
    let longest = |value| {
        let config = read_pairs(&[("fprocess", "cat"), ("log_buffer_size", value)]);
        config.map(|config| (config.longest_line, config.warnings.len()))
    };
    assert_eq!(longest(""), Ok((65_536, 0)));
    assert_eq!(longest("1000"), Ok((1000, 0)));
    assert_eq!(longest("-1"), Ok((128 * 1024, 1)));
    assert_eq!(longest("255"), Ok((256, 1)));
    assert!(longest("64k").unwrap_err()[0].starts_with("log_buffer_size=64k"));
}

#[test]
fn prefix_logs_takes_gos_forms_and_belongs_to_the_other_modes() {
    let prefixed = |mode, value| {
        let pairs = [("fprocess", "cat"), ("mode", mode), ("prefix_logs", value)];
        let config = read_pairs(&pairs).unwrap();
        (config.prefix_logs, config.warnings.len())
    };
    assert_eq!(prefixed("streaming", "F"), (false, 0));
    assert_eq!(prefixed("streaming", "T"), (true, 0));
    assert_eq!(prefixed("streaming", "no"), (true, 1));
    assert_eq!(prefixed("classic", "true"), (false, 1));
}

#[test]
fn other_modes_have_their_own_defaults_and_switches() {
    let config = read_pairs(&[
        ("fprocess", "cat"),
        ("mode", "streaming"),
        ("suppress_lock", "1"),
        ("combine_output", "true"),
    ])
    .unwrap();
    assert_eq!(config.exec_timeout, Some(Duration::from_secs(30)));
    assert_eq!(config.content_type.unwrap(), "application/octet-stream");
    assert!(!config.lock_file && !config.combine_output && config.cgi_headers);
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("combine_output=true is not used in mode=streaming"));
}
