//! The one way in which the hypervisor says that it is broken itself.
//!
//! What a guest hands over is never a reason for this, nor is memory that runs out: they end in an
//! errno, a fault in the guest or the end of its domain. [`invariant!`] and [`OrBroken`] are for
//! what our own code has made so, and is to say no more than that: going on could let one guest
//! reach another, so the machine ends with an epitaph.
//!
//! ```
//! use invariant::{OrBroken, invariant};
//!
//! fn third(table: &[u8]) -> u8 {
//!     invariant!(!table.is_empty(), "a table is never empty");
//!     *table.get(3).or_broken("a table has four entries and more")
//! }
//! assert_eq!(third(&[1, 2, 3, 4]), 4);
//! ```
//!
//! All of these end in [`broken`], by whose name `cargo xtask lint` tells them from the compiler's
//! panics, which handling a VM exit must not lead to: there an index is a `get`, a sum is checked,
//! saturates or wraps, and a division is by what is never 0 by its type. `assert!`, `unwrap` and
//! `array[index]` are as good as ever where the compiler sees that they hold, while the machine
//! starts, and in tests.
#![no_std]
#![forbid(unsafe_code)]

use core::fmt;

/// Ends the run: the hypervisor's own state is not as it must be. The epitaph shows `what`, and the
/// place of the caller.
///
/// # Panics
/// Always.
#[cold]
#[inline(never)]
#[track_caller]
#[expect(clippy::panic, reason = "this is the place for it")]
pub fn broken(what: fmt::Arguments<'_>) -> ! {
    panic!("{what}")
}

/// Ends the run unless a condition on the hypervisor's own state holds; takes what [`format_args!`]
/// does to say what should have held.
#[macro_export]
macro_rules! invariant {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            $crate::broken(format_args!($($what)+));
        }
    };
}

/// Values that are there by the hypervisor's own doing.
pub trait OrBroken {
    /// What is there.
    type Value;

    /// The value; ends the run if there is none, saying `what` should have held.
    ///
    /// # Panics
    /// When there is none: see [`broken`].
    #[track_caller]
    fn or_broken(self, what: &'static str) -> Self::Value;
}

impl<T> OrBroken for Option<T> {
    type Value = T;

    #[inline(always)]
    #[track_caller]
    fn or_broken(self, what: &'static str) -> T {
        match self {
            Some(value) => value,
            None => none(what),
        }
    }
}

impl<T, E: fmt::Debug> OrBroken for Result<T, E> {
    type Value = T;

    #[inline(always)]
    #[track_caller]
    fn or_broken(self, what: &'static str) -> T {
        match self {
            Ok(value) => value,
            Err(error) => failed(what, &error),
        }
    }
}

#[cold]
#[inline(never)]
#[track_caller]
fn none(what: &'static str) -> ! {
    broken(format_args!("{what}"))
}

#[cold]
#[inline(never)]
#[track_caller]
fn failed(what: &'static str, error: &dyn fmt::Debug) -> ! {
    broken(format_args!("{what}: {error:?}"))
}

#[cfg(test)]
mod tests {
    use super::OrBroken;

    #[test]
    fn what_holds_passes() {
        invariant!(1 < 2, "order");
        assert_eq!(Some(3).or_broken("three"), 3);
        assert_eq!(Ok::<_, u8>(4).or_broken("four"), 4);
    }

    #[test]
    #[should_panic(expected = "4 pages, not 5")]
    fn what_does_not_hold_is_said() {
        let pages = 4;
        invariant!(pages == 5, "{pages} pages, not 5");
    }

    #[test]
    #[should_panic(expected = "a page")]
    fn nothing_is_broken() {
        None::<u8>.or_broken("a page");
    }

    #[test]
    #[should_panic(expected = "a page: Full(7)")]
    fn an_error_is_shown() {
        #[derive(Debug)]
        struct Full(#[expect(dead_code, reason = "shown")] u8);
        Err::<u8, _>(Full(7)).or_broken("a page");
    }
}
