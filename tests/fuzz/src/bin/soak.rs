//! Random operations of a generator on every target: `soak [OPERATIONS [SEED]]`, or `soak --list`.

use std::process::ExitCode;
use std::time::Instant;

use fuzz::{TARGETS, random};

const OPERATIONS: u64 = 1_000_000;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--list") {
        for target in TARGETS {
            println!("{:14} {}", target.name, target.about);
        }
        return ExitCode::SUCCESS;
    }
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let (Ok(operations), Ok(seed)) = (
        words.next().unwrap_or(Ok(OPERATIONS)),
        words.next().unwrap_or(Ok(1)),
    ) else {
        eprintln!("usage: soak [OPERATIONS [SEED]]");
        return ExitCode::FAILURE;
    };
    let mut total = 0;
    for target in TARGETS {
        let begun = Instant::now();
        let wanted = operations.saturating_mul(target.share).div_ceil(100);
        let done = random::soak(target, seed, wanted);
        let seconds = begun.elapsed().as_secs_f64();
        println!("{:14} {done:>7} operations in {seconds:.1} s", target.name);
        total += done;
    }
    println!("{total} operations from seed {seed}");
    ExitCode::SUCCESS
}
