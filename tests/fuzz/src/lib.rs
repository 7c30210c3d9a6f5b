//! Interpreters of random operations on the hypervisor's parts: each [`Target`] makes operations
//! of bytes, carries them out on the real code, and compares with a model of it or with what must
//! hold in any case.
//!
//! `cargo test` and the binary `soak` feed them bytes of a generator, in bounded number. The
//! binary `fuzz` is libFuzzer, which looks for bytes that lead to code not seen before; `cargo
//! xtask fuzz` builds and runs it.
#![expect(
    clippy::expect_used,
    clippy::std_instead_of_core,
    clippy::unwrap_used,
    reason = "tests, on a host"
)]

mod devices;
mod emulator;
mod events;
mod grants;
mod hostile_events;
mod hypercalls;
mod input;
mod p2m;
pub mod random;
mod store;

pub use input::Input;

/// One part of the hypervisor under random operations.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// Makes operations of all of the input, panics if something is wrong, and says how many they
    /// were.
    pub run: fn(&mut Input<'_>) -> u64,
    /// Of a hundred operations of a soak, how many are its.
    pub share: u64,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "hypercalls",
        about: "hypercalls and exits of two guests beside a third: isolation, census, channels",
        run: hypercalls::run,
        share: 25,
    },
    Target {
        name: "emulator",
        about: "instructions on a machine with holes: faults change nothing",
        run: emulator::run,
        share: 15,
    },
    Target {
        name: "devices",
        about: "disks and networks under front ends that keep to the rules or not, against a model",
        run: devices::run,
        share: 5,
    },
    Target {
        name: "events",
        about: "event channels of two domains, against a model of who is bound to whom",
        run: events::run,
        share: 20,
    },
    Target {
        name: "hostile-events",
        about: "event delivery to a domain that writes anything into the pages that it shares",
        run: hostile_events::run,
        share: 15,
    },
    Target {
        name: "grants",
        about: "mapping and copying among three domains, against a model of who has mapped what",
        run: grants::run,
        share: 5,
    },
    Target {
        name: "p2m",
        about: "a domain's physical memory, against a map of what was put where",
        run: p2m::run,
        share: 5,
    },
    Target {
        name: "store",
        about: "xenstore requests, against a map of paths; and any bytes",
        run: store::run,
        share: 10,
    },
];

/// The target with this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

#[cfg(test)]
mod tests {
    use super::{TARGETS, random};

    #[test]
    fn shares_are_of_a_hundred() {
        assert_eq!(TARGETS.iter().map(|target| target.share).sum::<u64>(), 100);
    }

    /// A short soak from a seed of its own for each target.
    #[test]
    fn every_target_stands_a_short_soak() {
        for target in TARGETS {
            random::soak(target, 1, 200 * target.share);
        }
    }
}
