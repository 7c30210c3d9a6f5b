//! Shares of vCPUs that are always runnable, whatever others do meanwhile.

use super::fluid::rates;
use super::sim::{ALLOWANCE, Kind, Plan, Sim};
use alloc::vec::Vec;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000;
/// The allowance, with the shortest turn that may come on top of it, and what a yield may wait
/// for in the simulation.
const SLACK: f64 = ALLOWANCE as f64 * 17.0 / 16.0 + 1.0;

fn spinners(weights: &[u32]) -> Vec<Kind> {
    let spinner = |&weight: &u32| Kind::new(weight, Plan::Spin);
    weights.iter().map(spinner).collect()
}

/// Checks that over a window of 20 s each vCPU has its fluid share, to a hundredth of a pCPU.
fn check_window(sim: &mut Sim, cpus: usize, ids: &[usize]) -> Result<(), TestCaseError> {
    let begin = sim.now;
    let before = sim.all_served();
    let window = 20 * SECOND;
    sim.run(begin + window);
    let weights: Vec<u32> = ids
        .iter()
        .map(|&id| sim.vcpus[id].kind.share.weight.get())
        .collect();
    for (&id, rate) in ids.iter().zip(rates(&weights, cpus)) {
        let got = (sim.served(id) - before[id]) as f64 / window as f64;
        prop_assert!(
            (got - rate).abs() < 0.01,
            "vcpu {id} of {weights:?} on {cpus}: {got:.4}, not {rate:.4}"
        );
    }
    Ok(())
}

proptest! {
    /// The bound that `queue` states.
    #[test]
    fn spinners_on_one_pcpu_stay_near_their_fluid_share(
        weights in prop::collection::vec(1u32..20, 1..8),
    ) {
        let rates = rates(&weights, 1);
        let mut sim = Sim::new(1, &spinners(&weights), 1);
        for at in (1..200).map(|step| step * 3_777) {
            sim.run(at);
            for (id, rate) in rates.iter().enumerate() {
                let off = sim.served(id) as f64 - rate * at as f64;
                let behind = SLACK * (weights.len() - 1) as f64 + 1.0;
                prop_assert!(-behind <= off && off <= SLACK, "vcpu {id} at {at}: {off}");
            }
        }
    }

    /// Among sleepers, yielders and warps, two spinners keep together, and nobody gets more by
    /// its weight than a spinner.
    #[test]
    fn nobody_outdoes_a_spinner(
        weights in prop::collection::vec(1u32..20, 2..8),
        plans in prop::collection::vec((0u8..3, 1u64..20_000, 1u64..50_000), 6),
        seed in any::<u64>(),
    ) {
        let mut kinds = spinners(&weights);
        for (kind, (plan, run, sleep)) in kinds.iter_mut().skip(2).zip(plans) {
            kind.plan = match plan {
                0 => Plan::Spin,
                1 => Plan::Sleep { run, sleep },
                _ => Plan::Yield { run },
            };
            if plan == 1 && sleep % 2 == 0 {
                kind.share.warp = run;
            }
        }
        let mut sim = Sim::new(1, &kinds, seed);
        let mut before = sim.all_served();
        for at in (1..40).map(|step| step * 33_333) {
            sim.run(at);
            let after = sim.all_served();
            let had = |id: usize| (after[id] - before[id]) as f64 / f64::from(weights[id]);
            for (id, kind) in kinds.iter().enumerate().skip(1) {
                let warp = kind.share.warp as f64;
                // A yield lets others get an allowance ahead more.
                let slack = (2.0 * SLACK + warp) / f64::from(weights[id])
                    + 2.0 * SLACK / f64::from(weights[0]);
                prop_assert!(had(id) <= had(0) + slack, "vcpu {id} at {at}");
                if matches!(kind.plan, Plan::Spin) {
                    let warps: u64 = kinds.iter().map(|kind| kind.share.warp).sum();
                    prop_assert!(had(0) <= had(id) + slack + warps as f64, "vcpu {id} at {at}");
                }
            }
            before = after;
        }
    }

    #[test]
    fn spinners_on_several_pcpus_have_their_fluid_shares(
        cpus in 1usize..6,
        weights in prop::collection::vec(1u32..10, 1..12),
        scale in 1u32..500,
    ) {
        let weights: Vec<u32> = weights.iter().map(|weight| weight * scale).collect();
        let mut sim = Sim::new(cpus, &spinners(&weights), 1);
        sim.run(2 * SECOND);
        let ids: Vec<usize> = (0..weights.len()).collect();
        check_window(&mut sim, cpus, &ids)?;
    }
}

/// Vcpus that can only run on one pCPU leave its clock behind for as long as they do; the others
/// have their shares soon after that.
#[test]
fn clocks_that_moved_apart_come_together() {
    let end_of_pins = 100 * SECOND;
    let mut kinds = spinners(&[1; 7]);
    for pinned in &mut kinds[..4] {
        pinned.affinity = 1;
        pinned.life.1 = end_of_pins;
    }
    for late in &mut kinds[4..6] {
        late.life.0 = end_of_pins;
    }
    kinds[6].affinity = 2;
    let mut sim = Sim::new(2, &kinds, 1);
    sim.run(end_of_pins);
    assert!((sim.served(0) as f64 / end_of_pins as f64 - 0.25).abs() < 0.001);
    assert_eq!(sim.served(6), end_of_pins);
    sim.run(end_of_pins + SECOND);
    check_window(&mut sim, 2, &[4, 5, 6]).unwrap();
}

/// Balancing settles: where the vCPUs can be divided well, they stay.
#[test]
fn a_good_division_is_kept() {
    for weights in [&[1u32, 1, 1, 1][..], &[1, 2, 4], &[2, 2, 1, 1]] {
        let mut sim = Sim::new(2, &spinners(weights), 1);
        sim.run(2 * SECOND);
        let moves = sim.moves;
        sim.run(60 * SECOND);
        assert_eq!(sim.moves, moves, "{weights:?}");
    }
}
