//! What a guest sees of the processor: CPUID and MSRs, by table, deny by default.

pub mod cpuid;
pub mod cr4;
pub mod msr;
mod mtrr;
