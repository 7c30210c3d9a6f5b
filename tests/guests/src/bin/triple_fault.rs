//! Ends in a triple fault; the line it prints first shows that it got there.
#![no_std]
#![no_main]

use guests::report::Report;
use guests::{console, cpu, say};

guests::main!(run);

fn run(_t: &mut Report) {
    say!("about to triple-fault");
    console::drain();
    cpu::triple_fault();
}
