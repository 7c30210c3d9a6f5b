//! The ideal: all vCPUs run at once, each at its part of the speed, none faster than a pCPU.

use alloc::vec::Vec;

/// Each vCPU's part of one pCPU's time, when vCPUs with these weights all run on `cpus` pCPUs.
pub(super) fn rates(weights: &[u32], cpus: usize) -> Vec<f64> {
    let mut rates = alloc::vec![0.0; weights.len()];
    let mut left: Vec<usize> = (0..weights.len()).collect();
    let mut speed = cpus as f64;
    loop {
        let sum: f64 = left.iter().map(|&id| f64::from(weights[id])).sum();
        let part = |id: usize| speed * f64::from(weights[id]) / sum;
        let (whole, shared): (Vec<usize>, Vec<usize>) =
            left.iter().partition(|&&id| part(id) >= 1.0);
        if whole.is_empty() {
            for id in shared {
                rates[id] = part(id);
            }
            return rates;
        }
        speed -= whole.len() as f64;
        for id in whole {
            rates[id] = 1.0;
        }
        left = shared;
    }
}

#[test]
fn no_vcpu_gets_more_than_a_pcpu() {
    assert_eq!(rates(&[1, 1, 2], 1), [0.25, 0.25, 0.5]);
    assert_eq!(rates(&[1, 2, 4], 2), [1.0 / 3.0, 2.0 / 3.0, 1.0]);
    assert_eq!(rates(&[5, 7], 4), [1.0, 1.0]);
}
