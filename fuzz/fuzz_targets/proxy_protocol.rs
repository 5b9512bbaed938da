#![no_main]

#[path = "../../gateway/tests/properties/choices.rs"]
mod choices;
#[path = "../../gateway/tests/properties/proxy_protocol.rs"]
mod proxy_protocol;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proxy_protocol::check(bytes));
