//! Deployments as clients write them, and every field wrong in turn.

use serde_json::json;

use super::*;

const HOME: Home<'static> = Home {
    namespace: "openfaas-fn",
    network: Some("functions"),
};

fn wanted(body: &Value) -> Result<Wanted, String> {
    HOME.wanted(Fields::parse(body.to_string().as_bytes()).unwrap())
}

fn full() -> Value {
    json!({
        "service": "cat.openfaas-fn", "image": "registry:5000/skep/cat:1", "namespace": "openfaas-fn", "network": "functions",
        "envProcess": "cat -n", "envVars": { "A": "b=c" }, "constraints": ["node.role == worker"], "secrets": ["key"],
        "labels": { "com.openfaas.scale.min": "2", "skep.timeout": "90s" }, "annotations": { "topic": "x" },
        "limits": { "memory": "40m", "cpu": "100m" }, "requests": { "memory": "20Mi" },
        "readOnlyRootFilesystem": true, "registryAuth": "bWU6aHVudGVyMg==", "novelty": [1, 2]
    })
}

#[test]
fn everything_that_was_written_is_wanted() {
    let wanted = wanted(&full()).unwrap();
    assert_eq!(wanted.name.as_str(), "cat");
    assert_eq!(wanted.spec.limits.memory.as_deref(), Some("40m"));
    assert_eq!(
        (wanted.limits.memory, wanted.limits.nano_cpus),
        (Some(40 << 20), Some(100_000_000))
    );
    assert_eq!(
        wanted.requests,
        Amounts {
            memory: Some(20 << 20),
            nano_cpus: None
        }
    );
    assert_eq!(wanted.registry.unwrap().password, "hunter2");
    assert!(
        wanted.spec.read_only
            && wanted.spec.secrets == ["key"]
            && wanted.spec.env_vars["A"] == "b=c"
    );
}

#[test]
fn what_old_clients_send_for_nothing_is_nothing() {
    let bare = json!({ "service": "cat", "image": "cat", "labels": null, "annotations": null, "network": "", "registryAuth": "", "limits": null });
    assert_eq!(
        wanted(&bare).unwrap().spec,
        Spec {
            image: "cat".into(),
            ..Spec::default()
        }
    );
}

#[test]
fn every_field_wrong_in_turn_is_named() {
    for (field, value, named) in [
        ("service", json!(1), "service:"),
        ("service", json!(""), "service:"),
        ("service", json!("n".repeat(64)), "service:"),
        ("service", json!("cat.other"), "service:"),
        ("service", json!("../x"), "service:"),
        ("service", json!("-cat"), "service:"),
        ("image", json!(null), "image:"),
        ("image", json!("a b"), "image:"),
        ("namespace", json!("kube-system"), "namespace:"),
        ("network", json!("bridge"), "network:"),
        ("envProcess", json!(["cat"]), "envProcess:"),
        ("envVars", json!({ "A": 1 }), "envVars.A:"),
        ("envVars", json!({ "A=B": "" }), "envVars.A=B:"),
        ("envVars", json!({ "fprocess": "wc" }), "envVars.fprocess:"),
        ("constraints", json!("node.role==worker"), "constraints:"),
        ("constraints", json!(["disktype=ssd"]), "constraints:"),
        ("secrets", json!(["a/b"]), "secrets:"),
        ("secrets", json!(["key", "key"]), "secrets:"),
        ("labels", json!({ "x": null }), "labels.x:"),
        (
            "labels",
            json!({ "com.openfaas.function": "dog" }),
            "labels.com.openfaas.function:",
        ),
        (
            "labels",
            json!({ "skep.asked.limits.memory": "1" }),
            "labels.skep.asked.limits.memory:",
        ),
        (
            "labels",
            json!({ "com.docker.stack.namespace": "x" }),
            "labels.com.docker.stack.namespace:",
        ),
        (
            "labels",
            json!({ "skep.enable": "false" }),
            "labels.skep.enable:",
        ),
        (
            "labels",
            json!({ "skep.timeout": "soon" }),
            "labels.skep.timeout:",
        ),
        ("labels", json!({ "skep.port": "0" }), "labels.skep.port:"),
        (
            "labels",
            json!({ "skep.tmp-size": "0" }),
            "labels.skep.tmp-size:",
        ),
        (
            "labels",
            json!({ "com.openfaas.scale.min": "many" }),
            "labels.com.openfaas.scale.min:",
        ),
        (
            "labels",
            json!({ "com.openfaas.scale.min": "3", "com.openfaas.scale.max": "2" }),
            "labels.com.openfaas.scale.min:",
        ),
        ("annotations", json!([]), "annotations:"),
        ("limits", json!("40Mi"), "limits:"),
        ("limits", json!({ "memory": "lots" }), "limits.memory:"),
        ("limits", json!({ "cpu": 1 }), "limits.cpu:"),
        (
            "limits",
            json!({ "nvidia.com/gpu": "1" }),
            "limits.nvidia.com/gpu:",
        ),
        ("requests", json!({ "memory": "1Gi" }), "requests.memory:"),
        ("requests", json!({ "cpu": "-1" }), "requests.cpu:"),
        (
            "readOnlyRootFilesystem",
            json!("true"),
            "readOnlyRootFilesystem:",
        ),
        ("registryAuth", json!("me:hunter2"), "registryAuth:"),
    ] {
        let mut body = full();
        body[field] = value.clone();
        let told = wanted(&body).unwrap_err();
        assert!(
            told.starts_with(named) && !told.contains("hunter2"),
            "{field}={value}: {told}"
        );
    }
}
