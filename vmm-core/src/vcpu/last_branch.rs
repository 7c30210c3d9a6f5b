//! A vCPU's last-branch records. Few guests ever look at any, so a vCPU has none until it first
//! touches one or turns recording on.

use alloc::vec::Vec;

use vmx::cpu::last_branch::Stack;

use super::ext_state::LOADABLE;

/// The records of a vCPU: in the CPU while its state is loaded, else as of when it left.
#[derive(Debug)]
pub(super) struct LastBranches {
    stack: &'static Stack,
    /// In the order of [`Stack::registers`].
    values: Vec<u64>,
}

impl LastBranches {
    /// The records after a reset; `None` when memory is short.
    pub(super) fn new(stack: &'static Stack) -> Option<Self> {
        let registers = stack.registers();
        let count = registers.fold(0_usize, |count, _| count.saturating_add(1));
        let mut values = Vec::new();
        values.try_reserve_exact(count).ok()?;
        values.resize(count, 0);
        Some(Self { stack, values })
    }

    /// A register, of the vCPU whose state is loaded; 0 for one that the CPU does not have.
    pub(super) fn read(&self, msr: u32) -> u64 {
        let Some((place, register)) = self.stack.find(msr) else {
            return 0;
        };
        if LOADABLE {
            return register.read();
        }
        self.values.get(place).copied().unwrap_or(0)
    }

    /// Writes a register, of the vCPU whose state is loaded; `None` when the CPU does not have it
    /// or does not take the value.
    pub(super) fn write(&mut self, msr: u32, value: u64) -> Option<()> {
        let (place, register) = self.stack.find(msr)?;
        if LOADABLE {
            return register.write(value);
        }
        *self.values.get_mut(place)? = value;
        Some(())
    }

    pub(super) fn save(&mut self) {
        for (value, register) in self.values.iter_mut().zip(self.stack.registers()) {
            *value = register.read();
        }
    }

    pub(super) fn load(&self) {
        for (&value, register) in self.values.iter().zip(self.stack.registers()) {
            register.restore(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use vmx::cpu::last_branch::Stack;

    use super::LastBranches;

    #[test]
    fn records_start_empty_and_keep_what_is_written() {
        let skylake = Stack::of_model(0x0005_0654).expect("a known model");
        let mut records = LastBranches::new(skylake).expect("enough memory");
        assert_eq!(records.read(0x680), 0);
        assert_eq!(records.write(0x680, 1), Some(()));
        assert_eq!(records.write(0xddf, 2), Some(()));
        assert_eq!((records.read(0x680), records.read(0xddf)), (1, 2));
        assert_eq!(records.read(0x681), 0);
        assert_eq!(records.write(0x6a0, 3), None);
        assert_eq!(records.read(0x6a0), 0);
    }
}
