#![no_main]

#[path = "../../gateway/tests/properties/choices.rs"]
mod choices;
#[path = "../../gateway/tests/properties/line.rs"]
mod line;
#[path = "../../gateway/tests/properties/requests.rs"]
mod requests;
#[path = "../../gateway/tests/properties/strict.rs"]
mod strict;
#[path = "../../gateway/tests/properties/traffic.rs"]
mod traffic;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| requests::check(bytes));
