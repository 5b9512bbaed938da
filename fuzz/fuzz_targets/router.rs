#![no_main]

#[path = "../../gateway/tests/properties/choices.rs"]
mod choices;
#[path = "../../gateway/tests/properties/router.rs"]
mod router;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| router::check(bytes));
