//! What a guest sees of the processor: CPUID and MSRs, by table, deny by default.

pub mod cpuid;
pub mod msr;
mod mtrr;
