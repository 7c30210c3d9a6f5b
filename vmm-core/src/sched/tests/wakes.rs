//! What becomes of vCPUs that sleep: how soon they run, and what they can gain.

use super::sim::{ALLOWANCE, Kind, Plan, Sim};
use alloc::vec::Vec;

const SECOND: u64 = 1_000_000;

/// Four spinners and a vCPU that sleeps.
fn beside_spinners(sleeper: Kind) -> Sim {
    let mut kinds: Vec<Kind> = (0..4).map(|_| Kind::new(1, Plan::Spin)).collect();
    kinds.push(sleeper);
    let mut sim = Sim::new(1, &kinds, 7);
    sim.run(20 * SECOND);
    sim
}

const SHORT: Plan = Plan::Sleep {
    run: 300,
    sleep: 20_000,
};

#[test]
fn a_warped_waker_runs_at_once() {
    let mut kind = Kind::new(1, SHORT);
    assert!(beside_spinners(kind).vcpus[4].latency > ALLOWANCE / 2);
    kind.share.warp = 10_000;
    assert_eq!(beside_spinners(kind).vcpus[4].latency, 0);
}

#[test]
fn an_unwarped_waker_waits_for_one_allowance_of_each_other_at_most() {
    let latency = beside_spinners(Kind::new(1, SHORT)).vcpus[4].latency;
    assert!(latency <= 4 * (ALLOWANCE + ALLOWANCE / 16), "{latency}");
}

#[test]
fn a_warp_is_borrowed_not_given() {
    let hog = Plan::Sleep {
        run: 8_000,
        sleep: 200,
    };
    let mut kind = Kind::new(1, hog);
    kind.share.warp = 50_000;
    let sim = beside_spinners(kind);
    let fluid = 20 * SECOND / 5;
    assert!(sim.served(4) <= fluid + kind.share.warp + ALLOWANCE);
}

#[test]
fn a_warp_has_its_limits() {
    let hog = Plan::Sleep {
        run: 4_000,
        sleep: 100,
    };
    let mut kind = Kind::new(1, hog);
    kind.share.warp = 1_000 * SECOND;
    let without = beside_spinners(kind).served(4);
    assert!(without > 19 * SECOND, "{without}");
    kind.share.warp_limit = 10_000;
    kind.share.unwarp = 100_000;
    // A tenth of the time warped and a fifth of the rest: what it has ahead then counts.
    let limited = beside_spinners(kind).served(4);
    assert!(limited < 4 * SECOND + SECOND / 10, "{limited}");
}
