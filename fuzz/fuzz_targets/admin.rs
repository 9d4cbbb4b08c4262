#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| atrest_admin::internals::requests(data));
