//! libFuzzer on the target that `TESSERA_FUZZ_TARGET` names.
#![no_main]

use std::sync::OnceLock;

use fuzz::{Input, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn chosen() -> &'static Target {
    TARGET.get_or_init(|| {
        let name = std::env::var("TESSERA_FUZZ_TARGET").unwrap_or_default();
        fuzz::target(&name).unwrap_or_else(|| panic!("no target {name:?}"))
    })
}

fuzz_target!(|bytes: &[u8]| {
    (chosen().run)(&mut Input::new(bytes));
});
