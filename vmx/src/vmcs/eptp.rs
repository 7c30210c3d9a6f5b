//! The EPT pointer: a VMCS field's format, so it lives here and not with the EPT tables.

use abi::Hpa;

use crate::caps::Controls;

/// An EPT pointer: SDM 3C, "Extended-Page-Table Pointer (EPTP)".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eptp(u64);

impl Eptp {
    /// The pointer to `root`, the frame of the top-level table of a four-level EPT.
    ///
    /// # Panics
    /// When `root` is not page-aligned.
    #[must_use]
    pub const fn new(root: Hpa, controls: &Controls) -> Self {
        assert!(root.is_page_aligned(), "a table fills a frame");
        Self(root.raw() | controls.eptp_template)
    }

    /// The value of the VMCS field, which INVEPT takes too.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}
