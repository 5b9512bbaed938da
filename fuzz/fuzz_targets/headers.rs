#![no_main]

#[path = "../../gateway/tests/properties/choices.rs"]
mod choices;
#[path = "../../gateway/tests/properties/headers.rs"]
mod headers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| headers::check(bytes));
