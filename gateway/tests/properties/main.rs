//! What holds for every path, head, first bytes of a connection and bytes of a client, tried on thousands of random ones; `PROPERTY_CASES` of each.
//!
//! Each check reads its case from bytes, so that `fuzz/` can look for cases by what the code does with them.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    missing_docs,
    reason = "a test stops where its world does not hold; the checks are shared with fuzz/"
)]

mod choices;
mod headers;
mod line;
mod proxy_protocol;
mod requests;
mod router;
mod strict;
mod traffic;

use proptest::collection::vec;
use proptest::prelude::*;

/// As many as `make test` has time for; `make soak` asks for more.
const CASES: u32 = 20_000;

fn config() -> ProptestConfig {
    let asked = std::env::var("PROPERTY_CASES").ok();
    ProptestConfig {
        cases: asked.and_then(|count| count.parse().ok()).unwrap_or(CASES),
        // What has failed once becomes a test of its own.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_path_calls_its_function_and_reaches_nothing_else(bytes in vec(any::<u8>(), 0..40)) {
        router::check(&bytes);
    }

    #[test]
    fn what_crosses_the_gateway_is_what_the_documents_say(bytes in vec(any::<u8>(), 0..80)) {
        headers::check(&bytes);
    }

    #[test]
    fn a_proxy_header_is_read_to_its_end_and_no_further(bytes in vec(any::<u8>(), 0..400)) {
        proxy_protocol::check(&bytes);
    }

    #[test]
    fn requests_are_found_and_answered_whatever_is_sent(bytes in vec(any::<u8>(), 0..160)) {
        requests::check(&bytes);
    }
}
