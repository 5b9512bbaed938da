//! Finding a function takes as long among ten thousand as among ten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use skep::function::{Deployment, FunctionName, Handling, Limits, Replicas, Rollout, Spec};
use skep::metrics::Metrics;
use skep::table::{Listing, Table, TableWriter};

const LOOKUPS: usize = 100_000;

fn deployment(name: &str) -> Deployment {
    Deployment {
        name: FunctionName::new(name).unwrap(),
        short_name: None,
        spec: Spec::default(),
        limits: Limits::default(),
        handling: Handling::default(),
        route: Ok(None),
        replicas: Replicas::default(),
        rollout: Rollout::default(),
        addresses: Vec::new(),
        unhealthy: Vec::new(),
    }
}

/// What one lookup takes among so many functions, at best of some rounds: the others were disturbed.
fn lookup_among(count: usize) -> Duration {
    let table = Table::default();
    let mut writer = TableWriter::new(table.clone(), Arc::new(Metrics::new()), 1);
    let names: Vec<_> = (0..count).map(|at| format!("function-{at}")).collect();
    writer.publish(Listing {
        subnets: Default::default(),
        functions: names.iter().map(|name| deployment(name)).collect(),
        elsewhere: Vec::new(),
        settled: true,
    });
    let rounds = (0..10).map(|_| {
        let began = Instant::now();
        for at in 0..LOOKUPS {
            // A step that visits all of them, far from one another.
            assert!(table.find(&names[at * 7919 % count]).is_some());
        }
        began.elapsed()
    });
    rounds.min().unwrap() / LOOKUPS as u32
}

#[test]
fn a_lookup_among_ten_thousand_functions_takes_about_as_long_as_among_ten() {
    let [few, many] = [10, 10_000].map(lookup_among);
    println!("among 10: {few:?}, among 10,000: {many:?}");
    // Far from the processor's cache each takes some memory's latency more; a search would take a thousand times as long.
    assert!(
        many < few * 5 + Duration::from_nanos(300),
        "{few:?} {many:?}"
    );
}
