//! Touches all of its memory, stays for `ms=` milliseconds after its start, and restarts, until its
//! domain's id is `last=`: what all that costs the hypervisor must not hold up others. Memory that
//! comes back from an earlier life is zero.
#![no_std]
#![no_main]

use abi::PAGE_SIZE;
use abi::sched::reason;
use guests::report::Report;
use guests::xen::{self, SharedInfo};
use guests::{check, cpu, runtime, say};

guests::main!(run);

/// Behind this guest's image and whatever the builder puts there.
const FIRST: u64 = 8 << 20;

fn run(t: &mut Report) {
    let shared = SharedInfo::map();
    let begun = shared.now();
    let end = runtime::option("mib").unwrap_or(16) << 20;
    let mut touched = 0;
    for at in (FIRST..end).step_by(PAGE_SIZE) {
        // The last word of each page.
        let word = at + PAGE_SIZE as u64 - 8;
        let zero = cpu::read64(word) == Ok(0);
        check!(t, zero, "zeros at {word:#x}");
        if !zero || cpu::write64(word, !0).is_err() {
            return;
        }
        touched += 1;
    }
    check!(t, touched > 0, "{touched} pages touched");
    let lived = shared.now() - begun;
    say!("touched {touched} pages in {} us", lived / 1000);
    shared.spin_until(begun + runtime::option("ms").unwrap_or(0) * 1_000_000);
    if u64::from(xen::domid().0) < runtime::option("last").unwrap_or(0) {
        runtime::end(reason::REBOOT);
    }
}
