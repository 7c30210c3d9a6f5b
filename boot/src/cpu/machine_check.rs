//! What the machine-check banks hold, for the epitaph. SDM 3B, "Machine-Check Architecture".

use core::fmt::{self, Write};

use vmx::cpu::msr::rdmsr_safe;

/// `IA32_MCG_CAP`: the low byte counts the banks.
const CAPABILITIES: u32 = 0x179;
/// `IA32_MC0_STATUS`; address and further information follow, four MSRs to a bank.
const FIRST_STATUS: u32 = 0x401;
/// Status: the bank holds an error.
const VALID: u64 = 1 << 63;
/// Status: the bank's address register is valid.
const HAS_ADDRESS: u64 = 1 << 58;

/// Writes a line for each bank that holds an error.
pub(crate) fn report(out: &mut impl Write) -> fmt::Result {
    let banks = rdmsr_safe(CAPABILITIES).map_or(0, |value| value & 0xff);
    for (bank, register) in (0..banks).zip((FIRST_STATUS..).step_by(4)) {
        let status = rdmsr_safe(register).unwrap_or(0);
        if status & VALID == 0 {
            continue;
        }
        write!(out, "*** machine check bank {bank}: status {status:#018x}")?;
        if status & HAS_ADDRESS != 0 {
            write!(out, " address {:#x}", rdmsr_safe(register + 1).unwrap_or(0))?;
        }
        out.write_str("\r\n")?;
    }
    Ok(())
}
