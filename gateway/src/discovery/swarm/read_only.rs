//! The root file system of a function that asks for one that cannot be written to, and its `/tmp`. Pure.

use serde_json::{Value, json};

use super::applied::Applied;
use crate::discovery::operate::{TMP_SIZE, Wanted};
use crate::quantity;

/// Bytes of `/tmp` of a function with a read-only root, unless the label [`TMP_SIZE`] says otherwise.
const DEFAULT_TMP_SIZE: i64 = 64 << 20;

/// A root that cannot be written to leaves a function `/tmp`; the watchdog keeps its lock file there. It has a size, because what lies in
/// it is memory, and without a limit of the function's own all of the machine's.
pub(super) fn set(container: &mut Value, wanted: &Wanted, applied: &mut Applied) {
    let read_only = wanted.spec.read_only;
    let is_kept = container["ReadOnly"] == true && !applied.was_set("read-only", &json!(true));
    container["ReadOnly"] = json!(read_only || is_kept);
    // A gateway that did not say what it had set has set one without a size.
    let is_ours = |mount: &Value| {
        let is_tmp = mount["Type"] == "tmpfs" && mount["Target"] == "/tmp";
        let can_be_ours = applied.is_known() || mount["TmpfsOptions"].is_null();
        is_tmp && can_be_ours && applied.was_set("tmp", mount)
    };
    let mounts = container["Mounts"].as_array().into_iter().flatten();
    let mut mounts: Vec<Value> = mounts.filter(|mount| !is_ours(mount)).cloned().collect();
    if read_only {
        applied.set("read-only", &json!(true));
        if !mounts.iter().any(|mount| mount["Target"] == "/tmp") {
            // The label was checked when it came.
            let size = wanted.spec.labels.get(TMP_SIZE);
            let size = size.and_then(|text| quantity::memory(text).ok());
            let options = json!({ "SizeBytes": size.unwrap_or(DEFAULT_TMP_SIZE) });
            let tmp = json!({ "Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": options });
            applied.set("tmp", &tmp);
            mounts.push(tmp);
        }
    }
    container["Mounts"] = Value::Array(mounts);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::discovery::operate::Amounts;
    use crate::function::{FunctionName, Resources, Spec};

    fn wanted(read_only: bool, size: Option<&str>) -> Wanted {
        let label = size.map(|size| (TMP_SIZE.to_owned(), size.to_owned()));
        Wanted {
            name: FunctionName::new("cat").unwrap(),
            spec: Spec {
                image: "skep/cat".to_owned(),
                env_process: None,
                env_vars: BTreeMap::new(),
                constraints: Vec::new(),
                secrets: Vec::new(),
                labels: label.into_iter().collect(),
                annotations: BTreeMap::new(),
                limits: Resources::default(),
                requests: Resources::default(),
                read_only,
                created_at: None,
                notes: Vec::new(),
            },
            limits: Amounts::default(),
            requests: Amounts::default(),
            registry: None,
        }
    }

    /// The service's JSON after this change.
    fn after(mut service: Value, wanted: &Wanted) -> Value {
        let mut applied = Applied::before(&service);
        set(
            &mut service["TaskTemplate"]["ContainerSpec"],
            wanted,
            &mut applied,
        );
        applied.write(&mut service);
        service
    }

    fn mounts(service: &Value) -> &Value {
        &service["TaskTemplate"]["ContainerSpec"]["Mounts"]
    }

    #[test]
    fn tmp_has_a_size_which_a_label_changes() {
        let tmp = |bytes: i64| json!([{ "Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": { "SizeBytes": bytes } }]);
        let new = after(json!({}), &wanted(true, None));
        assert_eq!(*mounts(&new), tmp(64 << 20));
        let larger = after(new, &wanted(true, Some("1Gi")));
        assert_eq!(*mounts(&larger), tmp(1 << 30));
        let writable = after(larger, &wanted(false, Some("1Gi")));
        assert_eq!(*mounts(&writable), json!([]));
        assert_eq!(
            writable["TaskTemplate"]["ContainerSpec"]["ReadOnly"],
            json!(false)
        );
    }

    #[test]
    fn an_earlier_gateways_tmp_without_a_size_gets_one_and_an_operators_own_stays() {
        let service = |mount: &Value| {
            json!({
                "Name": "cat",
                "Labels": { "com.openfaas.function": "cat", "function": "true" },
                "TaskTemplate": { "ContainerSpec": {
                    "Labels": { "com.openfaas.function": "cat", "function": "true" },
                    "Mounts": [mount],
                } },
            })
        };
        let earlier = service(&json!({ "Type": "tmpfs", "Target": "/tmp" }));
        let changed = after(earlier, &wanted(true, None));
        assert_eq!(mounts(&changed)[0]["TmpfsOptions"]["SizeBytes"], 64 << 20);
        for own in [
            json!({ "Type": "volume", "Source": "tmp", "Target": "/tmp" }),
            json!({ "Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": { "SizeBytes": 5 } }),
        ] {
            let changed = after(service(&own), &wanted(true, None));
            assert_eq!(*mounts(&changed), json!([own]));
        }
    }
}
