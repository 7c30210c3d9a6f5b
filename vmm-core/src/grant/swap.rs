//! Exchanging two entries (`GNTTABOP_swap_grant_ref`).

use core::sync::atomic::Ordering::Relaxed;

use abi::GrantRef;
use abi::grant_table::status;

use super::pin::Status;
use super::{GrantTable, Version};

impl GrantTable {
    /// Exchanges two entries that nobody uses.
    ///
    /// # Errors
    /// The operation's status.
    pub fn swap(&mut self, a: GrantRef, b: GrantRef) -> Result<(), Status> {
        if a.0.max(b.0) >= self.entries() {
            return Err(status::BAD_GNTREF);
        }
        if a == b {
            return Ok(());
        }
        for gref in [a, b] {
            let active = self.active.get(gref);
            if active.is_some_and(|active| !active.is_idle()) {
                return Err(status::EAGAIN);
            }
        }
        for gref in [a, b] {
            let (frame, _) = self.version.place(gref);
            let frame = self.frames.get_mut(frame);
            frame
                .and_then(|frame| frame.page(self.domain).ok())
                .ok_or(status::GENERAL_ERROR)?;
        }
        let entries = [a, b].map(|gref| self.place_of_entry(gref));
        let [Some((page_a, at_a)), Some((page_b, at_b))] = entries else {
            return Err(status::GENERAL_ERROR);
        };
        // All there is to fail comes before the first change.
        let statuses = match self.version {
            Version::V1 => None,
            Version::V2 => match [a, b].map(|gref| self.place_of_status(gref)) {
                [Some(a), Some(b)] => Some([a, b]),
                _ => return Err(status::GENERAL_ERROR),
            },
        };
        for offset in (0..self.version.entry_size()).step_by(size_of::<u64>()) {
            let word_a = page_a.u64(at_a.saturating_add(offset));
            let word_b = page_b.u64(at_b.saturating_add(offset));
            let old_a = word_a.load(Relaxed);
            word_a.store(word_b.load(Relaxed), Relaxed);
            word_b.store(old_a, Relaxed);
        }
        if let Some([(page_a, at_a), (page_b, at_b)]) = statuses {
            let (status_a, status_b) = (page_a.u16(at_a), page_b.u16(at_b));
            let old_a = status_a.load(Relaxed);
            status_a.store(status_b.load(Relaxed), Relaxed);
            status_b.store(old_a, Relaxed);
        }
        Ok(())
    }
}
