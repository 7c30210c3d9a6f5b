//! Bytes of a generator, for runs that are to be the same each time.

use calls::{Choice, Generator};

use crate::{Input, Target};

/// Bytes of one input.
const LENGTH: usize = 4096;

/// Has a target carry out that many operations at least, and says how many they were.
///
/// # Panics
/// When the target finds something wrong.
pub fn soak(target: &Target, seed: u64, operations: u64) -> u64 {
    let mut generator = Generator::new(seed);
    let mut done = 0;
    while done < operations {
        let mut bytes = [0; LENGTH];
        for word in bytes.chunks_exact_mut(8) {
            word.copy_from_slice(&generator.any().to_le_bytes());
        }
        done += (target.run)(&mut Input::new(&bytes));
    }
    done
}
