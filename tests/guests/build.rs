//! Hands the linker the micro-guests' layout.

use std::env;

fn main() {
    let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rustc-link-arg-bins=-T{here}/guests.ld");
    println!("cargo:rerun-if-changed=guests.ld");
}
