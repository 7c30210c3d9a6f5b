//! A domain's claim on CPU time, for the scheduler.

use alloc::format;
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// The largest weight.
pub const MAX_WEIGHT: u32 = 65_535;
/// The longest warp, warp limit or pause, in microseconds.
pub const MAX_WARP_US: u32 = 10_000_000;

/// What each vCPU of a domain may claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Share {
    /// CPU time relative to that of others.
    pub weight: u32,
    /// Microseconds of its own CPU time that a vCPU may borrow from its future when it wakes; 0
    /// for none.
    pub warp: u32,
    /// Microseconds that it may run on borrowed time before it has to pause; 0 for no limit.
    pub warp_limit: u32,
    /// Microseconds of that pause.
    pub unwarp: u32,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            weight: 256,
            warp: 0,
            warp_limit: 0,
            unwarp: 0,
        }
    }
}

impl Share {
    /// What is wrong with it: the key, and cause and remedy.
    #[must_use]
    pub fn mistake(&self) -> Option<(&'static str, String)> {
        let Self {
            weight,
            warp,
            warp_limit,
            unwarp,
        } = *self;
        if !(1..=MAX_WEIGHT).contains(&weight) {
            let text = format!("there is no weight {weight}; give 1 to {MAX_WEIGHT}");
            return Some(("weight", text));
        }
        let times = [
            ("warp", warp),
            ("warp_limit", warp_limit),
            ("unwarp", unwarp),
        ];
        for (key, time) in times {
            if time > MAX_WARP_US {
                let text = format!(
                    "{time} microseconds are too long; give 0 to {MAX_WARP_US} (ten seconds)"
                );
                return Some((key, text));
            }
        }
        if warp == 0 && warp_limit != 0 {
            let text = "nothing is borrowed without a warp; add for example `warp = 10000`";
            return Some(("warp_limit", text.into()));
        }
        if warp_limit == 0 && unwarp != 0 {
            let text = "there is no pause without a limit; add for example `warp_limit = 5000`";
            return Some(("unwarp", text.into()));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Share;

    fn mistake(change: impl FnOnce(&mut Share)) -> Option<&'static str> {
        let mut share = Share::default();
        change(&mut share);
        share.mistake().map(|(key, _)| key)
    }

    #[test]
    fn each_mistake_has_its_key() {
        assert_eq!(mistake(|_| ()), None);
        assert_eq!(mistake(|share| share.weight = 0), Some("weight"));
        assert_eq!(mistake(|share| share.weight = 65_536), Some("weight"));
        assert_eq!(mistake(|share| share.warp = 10_000_001), Some("warp"));
        assert_eq!(mistake(|share| share.warp_limit = 1), Some("warp_limit"));
        let no_limit = mistake(|share| (share.warp, share.unwarp) = (5, 5));
        assert_eq!(no_limit, Some("unwarp"));
        let all = |share: &mut Share| (share.warp, share.warp_limit, share.unwarp) = (9, 9, 9);
        assert_eq!(mistake(all), None);
    }
}
