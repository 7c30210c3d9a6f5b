//! What a micro-guest found out: checks, and the verdict that sums them up.

use core::fmt;

use heapless::String;

use crate::say;

/// Bytes of the first failure that the verdict repeats.
const FIRST_FAILURE: usize = 160;

/// The checks made so far.
#[derive(Debug, Default)]
pub struct Report {
    checks: u32,
    failed: u32,
    first: String<FIRST_FAILURE>,
}

impl Report {
    /// Notes one check: `what` describes the expectation. Returns whether it held.
    pub fn check(&mut self, held: bool, what: fmt::Arguments<'_>) -> bool {
        self.checks = self.checks.saturating_add(1);
        if !held {
            self.failed = self.failed.saturating_add(1);
            say!("not so: {what}");
            if self.failed == 1 {
                self.first = cut(what);
            }
        }
        held
    }

    /// Notes that `left` should equal `right`; a failure shows both.
    pub fn check_eq<T: PartialEq + fmt::Debug>(
        &mut self,
        left: &T,
        right: &T,
        what: fmt::Arguments<'_>,
    ) -> bool {
        self.check(
            left == right,
            format_args!("{what} (got {left:x?}, want {right:x?})"),
        )
    }

    /// Prints the verdict.
    pub fn verdict(&self) {
        if self.failed == 0 {
            say!("verdict: pass ({} checks)", self.checks);
        } else {
            let Self {
                checks,
                failed,
                first,
            } = self;
            say!("verdict: fail {first} ({failed} of {checks} checks)");
        }
    }
}

/// Formats into a bounded string; what does not fit is cut.
fn cut<const N: usize>(text: fmt::Arguments<'_>) -> String<N> {
    struct Cut<const N: usize>(String<N>);
    impl<const N: usize> fmt::Write for Cut<N> {
        fn write_str(&mut self, s: &str) -> fmt::Result {
            for c in s.chars() {
                self.0.push(c).map_err(|_| fmt::Error)?;
            }
            Ok(())
        }
    }
    let mut out = Cut(String::new());
    // An error here only says that the text was cut.
    let _ = fmt::write(&mut out, text);
    out.0
}

/// Checks a condition: `check!(t, condition, "expectation {}", args)`.
#[macro_export]
macro_rules! check {
    ($report:expr, $condition:expr, $($what:tt)+) => {
        $report.check($condition, format_args!($($what)+))
    };
}

/// Checks that two values are equal: `check_eq!(t, got, wanted, "expectation {}", args)`.
#[macro_export]
macro_rules! check_eq {
    ($report:expr, $got:expr, $wanted:expr, $($what:tt)+) => {
        $report.check_eq(&$got, &$wanted, format_args!($($what)+))
    };
}

/// Names the function a micro-guest consists of: `guests::main!(run);` with
/// `fn run(t: &mut Report)`.
#[macro_export]
macro_rules! main {
    ($run:path) => {
        #[unsafe(no_mangle)]
        fn guest_main(report: &mut $crate::report::Report) {
            $run(report);
        }
    };
}
