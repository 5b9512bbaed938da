//! What the documents promise about the code: who may use whom, and that the tables name what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn sources(folder: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn src() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The top-level modules, and which of them each uses outside of its tests.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let mut files = Vec::new();
    sources(&src(), &mut files);
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files
        .iter()
        .filter(|file| !file.to_str().unwrap().ends_with("_tests.rs"))
    {
        let relative = file.strip_prefix(src()).unwrap();
        let module = relative
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned();
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for piece in code.split("crate::").skip(1) {
            let name: String = piece
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect();
            if !name.is_empty() && name != module {
                uses.entry(module.clone()).or_default().insert(name);
            }
        }
    }
    uses
}

#[test]
fn modules_use_each_other_in_one_direction() {
    let uses = uses();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut left: BTreeSet<&str> = uses.keys().map(String::as_str).collect();
    left.extend(uses.values().flatten().map(String::as_str));
    while !left.is_empty() {
        let free: Vec<_> = left
            .iter()
            .copied()
            .filter(|module| {
                uses.get(*module)
                    .is_none_or(|used| used.iter().all(|one| done.contains(one.as_str())))
            })
            .collect();
        assert!(!free.is_empty(), "a cycle among {left:?}");
        for module in free {
            left.remove(module);
            done.insert(module);
        }
    }
}

#[test]
fn nobody_but_main_uses_app_and_dockers_types_stay_in_the_swarm_provider() {
    for (module, used) in uses() {
        assert!(
            module == "main" || !used.contains("app"),
            "{module} uses app"
        );
    }
    let mut files = Vec::new();
    sources(&src(), &mut files);
    for file in files {
        let inside = file.to_str().unwrap().contains("discovery/swarm");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            inside || !text.contains("bollard"),
            "{} speaks of Docker's library",
            file.display()
        );
    }
}

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)).unwrap()
}

#[test]
fn the_configuration_page_names_every_setting_with_its_default() {
    let page = document("docs/configuration.md");
    for setting in skep::config::SETTINGS {
        let row = format!(
            "| `--{}` | `{}` | `{}` |",
            setting.flag, setting.env, setting.default
        );
        assert!(
            page.contains(&row),
            "docs/configuration.md lacks the row {row}"
        );
    }
}

#[test]
fn the_configuration_page_names_every_label_and_annotation() {
    use skep::function::labels::{ANNOTATIONS, LABELS};
    let page = document("docs/configuration.md");
    for name in LABELS.iter().chain(&ANNOTATIONS) {
        let row = format!("| `{name}` | ");
        assert!(
            page.contains(&row),
            "docs/configuration.md lacks the row {row}"
        );
    }
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let names =
        rows.filter(|name| name.starts_with("skep.") || name.starts_with("com.openfaas.scale"));
    for name in names.filter(|name| !name.contains('=')) {
        let is_known = LABELS.contains(&name) || ANNOTATIONS.contains(&name);
        assert!(
            is_known,
            "docs/configuration.md has {name}, which is not in the lists"
        );
    }
}

#[test]
fn the_operations_page_names_every_metric() {
    let page = document("docs/operations.md");
    for (name, kind, labels, _) in skep::metrics::TABLE {
        let row = format!("| `{name}` | {kind} | {labels} |");
        assert!(
            page.contains(&row),
            "docs/operations.md lacks the row {row}"
        );
    }
}

#[test]
fn every_wait_that_a_peer_controls_has_a_limit_and_a_test() {
    let page = document("docs/reliability.md");
    let section = page.split("## Waits that a peer controls").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| wait |"));
    let mut count = 0;
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_wait, limit, test] = cells[..] else {
            panic!("not three cells: {row}");
        };
        assert!(!limit.is_empty(), "no limit: {row}");
        let (file, name) = test.trim_matches('`').split_once("::").unwrap();
        let path = match file.split_once('/') {
            None => format!("gateway/tests/local/{file}.rs"),
            Some(("src", rest)) => format!("gateway/src/{rest}.rs"),
            Some(_) => format!("gateway/tests/{file}.rs"),
        };
        let is_there = document(&path).contains(&format!("fn {name}()"));
        assert!(is_there, "{path} has no test {name}");
        count += 1;
    }
    assert!(count > 30, "{count} rows");
}

#[test]
fn the_clients_page_names_every_command() {
    let page = document("docs/client.md");
    let help = crate::support::gateway::run(&["help"], &[]);
    let help = String::from_utf8(help.stdout).unwrap();
    let listed = help.split("Commands:").nth(1).unwrap();
    let commands = listed
        .lines()
        .skip(1)
        .map_while(|line| line.split_whitespace().next());
    let mut count = 0;
    for command in
        commands.filter(|command| !["local", "config", "watchdog", "help"].contains(command))
    {
        assert!(
            page.contains(&format!("`skep {command}")),
            "docs/client.md lacks skep {command}"
        );
        count += 1;
    }
    assert!(count >= 9, "{help}");
}

#[test]
fn the_readme_shows_the_two_commands_and_every_sample() {
    let readme = document("README.md");
    assert!(readme.contains("make run") && readme.contains("make test"));
    let samples = document("sample-functions/README.md");
    let stack = skep::discovery::local::stack::Stack::load(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../sample-functions/stack.yml"),
        |name| std::env::var(name).ok(),
    )
    .unwrap();
    for name in stack.functions.keys().chain(stack.skipped.keys()) {
        assert!(
            samples.contains(&format!("/function/{name}")),
            "sample-functions/README.md lacks a curl of {name}"
        );
    }
}
