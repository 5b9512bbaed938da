//! Every sample answers what is stored beside it, and the local gateway says where each one is.

use std::path::Path;
use std::process::Command;

use crate::support::gateway::Gateway;

#[test]
fn every_sample_answers_what_is_stored_beside_it() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sample-functions");
    let gateway = Gateway::of_file(samples.join("stack.yml").to_str().unwrap());
    let (mut names, mut skipped) = (Vec::new(), Vec::new());
    for line in gateway
        .greeting
        .lines()
        .filter(|line| line.starts_with("  "))
    {
        let name = line.split_whitespace().next().unwrap();
        if line.contains("skipped:") {
            skipped.push(line.trim())
        } else {
            names.push(name)
        }
    }
    let folders = std::fs::read_dir(&samples)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().is_dir())
        .count();
    assert_eq!(
        names.len() + skipped.len(),
        folders,
        "every folder is in the stack file: {}",
        gateway.greeting
    );
    if !skipped.is_empty() {
        eprintln!("SKIPPED SAMPLES: {skipped:?}");
        assert!(std::env::var("CI").is_err(), "in CI every sample runs");
    }
    let url = format!("http://{}", gateway.address);
    let checked = Command::new(samples.join("check.sh"))
        .args(["-u", &url])
        .args(&names)
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
    assert!(
        gateway
            .greeting
            .contains(&format!("try: curl -d hello {url}/function/catservice")),
        "{}",
        gateway.greeting
    );
}
