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

#[test]
#[ignore = "needs schemathesis: make api-check"]
fn a_property_based_tester_finds_every_answer_as_described() {
    let gateway = Gateway::of("  cat:\n    fprocess: cat");
    let tester = std::env::var("SCHEMATHESIS").unwrap_or_else(|_| "schemathesis".to_owned());
    let checks = "status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method";
    let output = std::process::Command::new(tester)
        // It keeps notes where it runs.
        .current_dir(&gateway.folder.0)
        .args([
            "run",
            &format!("http://{}/system/openapi.json", gateway.address),
            "--checks",
            checks,
        ])
        // Logs that are followed do not end.
        .args([
            "--exclude-path",
            "/system/logs",
            "--max-examples",
            "50",
            "--phases",
            "examples,coverage,fuzzing",
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
