//! Two guests with a disk and a network interface each. Their front ends keep to the rules for a
//! while, and then not: indices, grants, requests and keys in the xenstore are anything, ports are
//! closed, states are said whenever it is not their time.
//!
//! While a front end keeps to the rules, whatever the rest does, its disk is what a vector of
//! sectors is, and it hears every frame that is sent to it and has a page to lie in. At the end,
//! with rings in use and requests under way or not, every frame of memory is free.

mod disk;
mod front;
mod net;

use vmm_core::testing::{MACS, TestMachine};

use crate::Input;
use disk::Disk;
use front::{Front, address};
use net::Net;

/// Operations of one input at most.
const MOST: u64 = 400;
/// Pages that nobody is to touch.
const WITNESSES: std::ops::Range<u64> = 0x80..0x88;

pub(crate) fn run(input: &mut Input<'_>) -> u64 {
    let machine = TestMachine::take();
    let fronts = [0, 1].map(|number| Front::new(&machine, number));
    for front in &fronts {
        WITNESSES.for_each(|page| front.write(address(page), &mark(page)));
    }
    let mut disks = fronts.each_ref().map(Disk::new);
    let [a, b] = &fronts;
    let mut nets = [Net::new(a, MACS[0]), Net::new(b, MACS[1])];
    let mut done = 0;
    while !input.is_empty() && done < MOST {
        let me = input.index(2);
        let front = &fronts[me];
        if input.flip() {
            disks[me].step(input, front);
        } else {
            let [first, second] = &mut nets;
            let (own, other) = if me == 0 {
                (first, second)
            } else {
                (second, first)
            };
            own.step(other, input, [front, &fronts[1 - me]]);
        }
        // What one who keeps to no rules has sent.
        for (net, front) in nets.iter_mut().zip(&fronts) {
            net.settle(front);
        }
        done += 1;
    }
    for front in &fronts {
        assert!(front.guest.lives());
        let untouched = |page| front.read::<u64>(address(page)) == mark(page);
        assert!(WITNESSES.into_iter().all(untouched));
    }
    let [a, b] = fronts;
    if input.flip() {
        a.guest.end();
        b.guest.end();
    } else {
        b.guest.end();
        a.guest.end();
    }
    machine.check_empty();
    done
}

const fn mark(page: u64) -> u64 {
    page ^ u64::MAX
}
