//! The description of the management API is served, and says of every path and verb what the gateway does with it.

use serde_json::Value;

use crate::support::client::{get, request};
use crate::support::gateway::Gateway;

const VERBS: [&str; 5] = ["get", "post", "put", "delete", "patch"];

#[test]
fn the_description_names_every_path_and_verb_and_no_other() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let description: Value = get(gateway.address, "/system/openapi.json").json();
    assert_eq!(
        (&description["openapi"], &description["info"]["version"]),
        (&"3.1.0".into(), &skep::VERSION.into())
    );
    let paths = description["paths"].as_object().unwrap();
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md")).unwrap();
    for (path, operations) in paths {
        let real = path
            .replace("{name}", "nobody")
            .replace("{id}", "x")
            .replace("{namespaceName}", "openfaas-fn");
        for verb in VERBS {
            // A body that no operation takes: nothing is changed by asking.
            let status = request(gateway.address, &verb.to_uppercase(), &real, &[], b"[]").status;
            let is_described = operations.get(verb).is_some();
            assert_eq!(
                status != 405,
                is_described,
                "{verb} {path} is answered {status}"
            );
        }
        let told = path
            .replace("{name}", "<name>")
            .replace("{id}", "<id>")
            .replace("{namespaceName}", "<name>");
        assert!(
            page.contains(&told) || told == "/system/openapi.json",
            "docs/api.md lacks {told}"
        );
    }
    assert_eq!(paths.len(), 14, "whoever adds a path describes it");
}

/// What schemathesis looks at in every answer. A 501 is described, and so no trouble; a 500 is not.
const CHECKS: &str = "status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,\
    negative_data_rejection,unsupported_method,allow_header_conformance";

#[test]
fn a_property_based_tester_finds_every_answer_as_described() {
    // The same ones each time: what is new is for those who look for it.
    tested(&["--max-examples", "20", "--seed", "1"]);
}

#[test]
#[ignore = "minutes: make soak, make api-check"]
fn a_property_based_tester_finds_every_answer_as_described_at_length() {
    tested(&["--max-examples", "300"]);
}

/// Has schemathesis ask a gateway, so often for each operation.
fn tested(examples: &[&str]) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/schemathesis");
    let tester = format!("{folder}/bin/schemathesis");
    if !std::path::Path::new(&tester).exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "{tester} is missing, and in CI this must run"
        );
        eprintln!(
            "SKIPPED: {tester} is missing (.ci/python-tools install), so no property was tested"
        );
        return;
    }
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let output = std::process::Command::new(tester)
        .env("PYTHONPATH", folder)
        // It keeps notes where it runs.
        .current_dir(&gateway.folder.0)
        .args([
            "run",
            &format!("http://{}/system/openapi.json", gateway.address),
        ])
        .args(["--checks", CHECKS])
        // Logs that are followed do not end.
        .args(["--exclude-path", "/system/logs"])
        .args(["--phases", "examples,coverage,fuzzing", "--no-color"])
        .args(examples)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    // It has asked at all, and not found everything left out.
    println!("{}", told.split("= SUMMARY =").last().unwrap_or_default());
    assert!(
        told.contains("Tested: ") && !told.contains("Tested: 0"),
        "{told}"
    );
}
