//! The alert webhook (wire contract §3.10): Prometheus' Alertmanager says which function is called often, and it gets replicas.

use std::collections::BTreeMap;

use hyper::{Response, StatusCode};
use serde_json::Value;

use super::caller::Caller;
use super::fields::Fields;
use super::manager::{Manager, invalid, noted};
use crate::discovery::operate::{Failed, SCALE_FACTOR, SCALE_MAX, SCALE_MIN, Trouble};
use crate::function::{FunctionName, MAX_REPLICAS};
use crate::reply::{self, Body};
use crate::router::without_namespace;

/// What a function that says nothing is scaled between, and by how many hundredths of the most.
const MIN: u64 = 1;
const MAX: u64 = 20;
const FACTOR: u64 = 20;

impl Manager {
    /// Scales what the alerts name. A function that nobody knows is passed over: alerts outlive functions.
    pub(super) async fn alert(
        &self,
        mut fields: Fields,
        caller: &Caller,
    ) -> Result<Response<Body>, Failed> {
        let alerts = self.alerts(fields.list("alerts"));
        fields.finish(()).map_err(invalid)?;
        let mut failures = Vec::new();
        for (name, is_firing) in alerts {
            if let Err(failed) = self.scale_by_alert(&name, is_firing, caller).await {
                failures.push((failed.kind, format!("{name}: {}", failed.sentence)));
            }
        }
        let Some(&(kind, _)) = failures.first() else {
            return Ok(reply::text(StatusCode::OK, ""));
        };
        let is_one_kind = failures.iter().all(|(other, _)| *other == kind);
        let kind = if is_one_kind { kind } else { Trouble::Refused };
        let sentences: Vec<_> = failures.into_iter().map(|(_, sentence)| sentence).collect();
        Err(Failed::new(kind, sentences.join("; ")))
    }

    /// Each function named once, with its last word.
    fn alerts(&self, alerts: Vec<Value>) -> BTreeMap<String, bool> {
        let named = alerts.into_iter().filter_map(|alert| {
            let name = alert["labels"]["function_name"].as_str()?;
            let name = without_namespace(name, &self.pages.namespace).to_owned();
            Some((name, alert["status"] == "firing"))
        });
        named.collect()
    }

    async fn scale_by_alert(
        &self,
        name: &str,
        is_firing: bool,
        caller: &Caller,
    ) -> Result<(), Failed> {
        let Some(function) = self.pages.table.find(name) else {
            tracing::debug!(name, "an alert names a function that is not here");
            return Ok(());
        };
        let deployment = &function.deployment;
        let current = deployment.replicas.desired;
        let replicas = replicas(current, is_firing, |label| {
            deployment.spec.labels.get(label).map(String::as_str)
        });
        if replicas == current {
            return Ok(());
        }
        let name: FunctionName = deployment.name.clone();
        let what = format!("scale function to {replicas} by alert");
        noted(
            caller,
            &what,
            &name,
            self.operator
                .scale(name.clone(), replicas, caller.authority()),
        )
        .await?;
        self.seen().await;
        Ok(())
    }
}

/// How many replicas an alert gives a function that has so many. Pure.
fn replicas<'a>(current: u64, is_firing: bool, label: impl Fn(&str) -> Option<&'a str>) -> u64 {
    let number = |name, default| {
        label(name)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(default)
    };
    let min = number(SCALE_MIN, MIN).max(1);
    let max = number(SCALE_MAX, MAX).clamp(min, MAX_REPLICAS.max(min));
    if !is_firing {
        return min;
    }
    let step = (max * number(SCALE_FACTOR, FACTOR).min(100)).div_ceil(100);
    (current + step).min(max).max(current.min(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(current: u64, is_firing: bool, labels: &[(&str, &'static str)]) -> u64 {
        let label = |name: &str| {
            labels
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| *value)
        };
        replicas(current, is_firing, label)
    }

    #[test]
    fn firing_adds_a_step_up_to_the_most_and_resolving_goes_back_to_the_least() {
        assert_eq!(scaled(1, true, &[]), 5);
        assert_eq!(scaled(18, true, &[]), 20);
        assert_eq!(scaled(5, false, &[]), 1);
        let labels = [(SCALE_MIN, "2"), (SCALE_MAX, "7"), (SCALE_FACTOR, "10")];
        assert_eq!(scaled(2, true, &labels), 3, "a step is rounded up");
        assert_eq!(scaled(7, true, &labels), 7);
        assert_eq!(scaled(5, false, &labels), 2);
        assert_eq!(
            scaled(3, true, &[(SCALE_FACTOR, "0")]),
            3,
            "no step, no scaling"
        );
        assert_eq!(scaled(2, true, &[(SCALE_MIN, "2"), (SCALE_MAX, "2")]), 2);
        assert_eq!(scaled(1, true, &[(SCALE_MAX, "nonsense")]), 5);
    }
}
