//! The CPU's own instructions: CPUID, MSRs, ports, memory probes, control registers, time stamp.
//!
//! The functions are safe to call although some can upset the machine: a micro-guest is alone on
//! its machine, and upsetting it is often the very test. Whatever may fault returns the fault.
#![expect(
    unsafe_code,
    reason = "privileged instructions and probes of foreign addresses"
)]

use core::arch::asm;

use crate::interrupts::RECOVERED;

/// A fault an instruction raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The exception's vector.
    pub vector: u8,
    /// Its error code, or 0.
    pub error: u32,
}

impl Fault {
    /// #UD.
    pub const UD: Self = Self {
        vector: 6,
        error: 0,
    };
    /// #GP(0).
    pub const GP: Self = Self {
        vector: 13,
        error: 0,
    };

    #[expect(clippy::cast_possible_truncation, reason = "fields of a packed word")]
    fn decode(word: u64) -> Result<(), Self> {
        if word & RECOVERED == 0 {
            return Ok(());
        }
        Err(Self {
            vector: (word >> 32) as u8,
            error: word as u32,
        })
    }
}

/// Runs one instruction; a fault it raises becomes the value.
macro_rules! attempt {
    ($instruction:tt) => { attempt!(@ $instruction;) };
    ($instruction:tt, $($operands:tt)+) => { attempt!(@ $instruction; $($operands)+,) };
    (@ $instruction:tt; $($operands:tt)*) => {{
        let outcome: u64;
        // SAFETY: the instruction's effects are named by the operands, or are what the guest
        // wants to find out about; a fault resumes right behind it by its recovery entry.
        unsafe {
            asm!(
                "xor r11d, r11d",
                concat!("2: ", $instruction),
                "3:",
                ".pushsection .recovery, \"a\", @progbits",
                ".quad 2b, 3b",
                ".popsection",
                $($operands)*
                out("r11") outcome,
            );
        }
        Fault::decode(outcome)
    }};
}

/// EAX, EBX, ECX, EDX of a CPUID leaf.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let (a, b, c, d): (u32, u64, u32, u32);
    // SAFETY: CPUID changes nothing but the four registers; RBX, which the compiler keeps to
    // itself, is put back.
    unsafe {
        asm!(
            "xchg {b}, rbx",
            "cpuid",
            "xchg {b}, rbx",
            b = inout(reg) 0_u64 => b,
            inout("eax") leaf => a,
            inout("ecx") subleaf => c,
            out("edx") d,
            options(nostack),
        );
    }
    [a, (b & 0xffff_ffff) as u32, c, d]
}

/// Reads an MSR.
///
/// # Errors
/// The fault RDMSR raised.
pub fn rdmsr(msr: u32) -> Result<u64, Fault> {
    let (low, high): (u32, u32);
    attempt!("rdmsr", in("ecx") msr, inout("eax") 0 => low, inout("edx") 0 => high)?;
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// Writes an MSR.
///
/// # Errors
/// The fault WRMSR raised.
#[expect(
    clippy::cast_possible_truncation,
    reason = "WRMSR takes the value in two halves"
)]
pub fn wrmsr(msr: u32, value: u64) -> Result<(), Fault> {
    attempt!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32)
}

macro_rules! port {
    ($read:ident, $write:ident, $type:ty, $register:tt, $in:tt, $out:tt) => {
        /// Reads a port of the width of the value.
        ///
        /// # Errors
        /// The fault IN raised.
        pub fn $read(port: u16) -> Result<$type, Fault> {
            let mut value: $type = 0;
            attempt!($in, in("dx") port, inout($register) value)?;
            Ok(value)
        }

        /// Writes a port of the width of the value.
        ///
        /// # Errors
        /// The fault OUT raised.
        pub fn $write(port: u16, value: $type) -> Result<(), Fault> {
            attempt!($out, in("dx") port, in($register) value)
        }
    };
}

port!(in8, out8, u8, "al", "in al, dx", "out dx, al");
port!(in16, out16, u16, "ax", "in ax, dx", "out dx, ax");
port!(in32, out32, u32, "eax", "in eax, dx", "out dx, eax");

/// Fills `buffer` from a port with one REP INSB.
///
/// # Errors
/// The fault INS raised.
pub fn ins8(port: u16, buffer: &mut [u8]) -> Result<(), Fault> {
    attempt!(
        "rep insb",
        in("dx") port,
        inout("rdi") buffer.as_mut_ptr() => _,
        inout("rcx") buffer.len() => _
    )
}

/// Fills `buffer` from a port with one REP INSD.
///
/// # Errors
/// The fault INS raised.
pub fn ins32(port: u16, buffer: &mut [u32]) -> Result<(), Fault> {
    attempt!(
        "rep insd",
        in("dx") port,
        inout("rdi") buffer.as_mut_ptr() => _,
        inout("rcx") buffer.len() => _
    )
}

/// Writes `buffer` to a port with one REP OUTSB.
///
/// # Errors
/// The fault OUTS raised.
pub fn outs8(port: u16, buffer: &[u8]) -> Result<(), Fault> {
    attempt!(
        "rep outsb",
        in("dx") port,
        inout("rsi") buffer.as_ptr() => _,
        inout("rcx") buffer.len() => _
    )
}

macro_rules! probe {
    ($read:ident, $write:ident, $type:ty, $class:ident, $read_insn:tt, $write_insn:tt) => {
        /// Reads guest-physical memory of the width of the value, wherever that is.
        ///
        /// # Errors
        /// The fault the access raised.
        pub fn $read(gpa: u64) -> Result<$type, Fault> {
            let mut value: $type = 0;
            attempt!($read_insn, in(reg) gpa, inout($class) value)?;
            Ok(value)
        }

        /// Writes guest-physical memory of the width of the value, wherever that is.
        ///
        /// # Errors
        /// The fault the access raised.
        pub fn $write(gpa: u64, value: $type) -> Result<(), Fault> {
            attempt!($write_insn, in(reg) gpa, in($class) value)
        }
    };
}

probe!(
    read8,
    write8,
    u8,
    reg_byte,
    "mov {1}, [{0}]",
    "mov [{0}], {1}"
);
probe!(
    read16,
    write16,
    u16,
    reg,
    "mov {1:x}, [{0}]",
    "mov [{0}], {1:x}"
);
probe!(
    read32,
    write32,
    u32,
    reg,
    "mov {1:e}, [{0}]",
    "mov [{0}], {1:e}"
);
probe!(
    read64,
    write64,
    u64,
    reg,
    "mov {1:r}, [{0}]",
    "mov [{0}], {1:r}"
);

/// Reads a byte of guest-physical memory with MOVZX.
///
/// # Errors
/// The fault the access raised.
pub fn read8_zero_extended(gpa: u64) -> Result<u32, Fault> {
    let mut value: u32 = 0;
    attempt!("movzx {1:e}, byte ptr [{0}]", in(reg) gpa, inout(reg) value)?;
    Ok(value)
}

/// Reads a 16-bit word of guest-physical memory with MOVSX.
///
/// # Errors
/// The fault the access raised.
pub fn read16_sign_extended(gpa: u64) -> Result<u64, Fault> {
    let mut value: u64 = 0;
    attempt!("movsx {1:r}, word ptr [{0}]", in(reg) gpa, inout(reg) value)?;
    Ok(value)
}

/// ORs `value` into guest-physical memory with one read-modify-write instruction.
///
/// # Errors
/// The fault the access raised.
pub fn or32(gpa: u64, value: u32) -> Result<(), Fault> {
    attempt!("or [{0}], {1:e}", in(reg) gpa, in(reg) value)
}

/// Copies guest-physical memory with REP MOVSD, 32-bit words at a time.
///
/// # Errors
/// The fault the access raised.
pub fn copy32(from: u64, to: u64, words: usize) -> Result<(), Fault> {
    attempt!(
        "rep movsd",
        inout("rsi") from => _,
        inout("rdi") to => _,
        inout("rcx") words => _
    )
}

/// Fills guest-physical memory with REP STOSD.
///
/// # Errors
/// The fault the access raised.
pub fn fill32(to: u64, value: u32, words: usize) -> Result<(), Fault> {
    attempt!("rep stosd", inout("rdi") to => _, inout("rcx") words => _, in("eax") value)
}

/// Executes UD2.
///
/// # Errors
/// Always the fault it raised.
pub fn ud2() -> Result<(), Fault> {
    attempt!("ud2")
}

/// Executes VMXON on a null operand: a guest without VMX gets #UD.
///
/// # Errors
/// The fault it raised.
pub fn vmxon() -> Result<(), Fault> {
    let operand = 0_u64;
    attempt!("vmxon [{0}]", in(reg) &raw const operand)
}

/// Executes RDPMC of counter 0.
///
/// # Errors
/// The fault it raised.
pub fn rdpmc() -> Result<(), Fault> {
    attempt!("rdpmc", inout("ecx") 0 => _, out("eax") _, out("edx") _)
}

/// Writes back and invalidates the caches.
///
/// # Errors
/// The fault it raised.
pub fn wbinvd() -> Result<(), Fault> {
    attempt!("wbinvd")
}

/// Writes XCR0.
///
/// # Errors
/// The fault XSETBV raised.
#[expect(
    clippy::cast_possible_truncation,
    reason = "XSETBV takes the value in two halves"
)]
pub fn xsetbv(value: u64) -> Result<(), Fault> {
    attempt!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32)
}

/// Writes CR0.
///
/// # Errors
/// The fault the write raised.
pub fn write_cr0(value: u64) -> Result<(), Fault> {
    attempt!("mov cr0, {0}", in(reg) value)
}

/// Writes CR4.
///
/// # Errors
/// The fault the write raised.
pub fn write_cr4(value: u64) -> Result<(), Fault> {
    attempt!("mov cr4, {0}", in(reg) value)
}

macro_rules! read_register {
    ($(#[$doc:meta])* $name:ident, $instruction:literal) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name() -> u64 {
            let value: u64;
            // SAFETY: reading a control register has no effect.
            unsafe { asm!($instruction, out(reg) value, options(nomem, nostack)) };
            value
        }
    };
}

read_register!(
    /// CR0 as the guest sees it.
    cr0, "mov {}, cr0"
);
read_register!(
    /// CR2, the address of the last page fault.
    cr2, "mov {}, cr2"
);
read_register!(
    /// CR4 as the guest sees it.
    cr4, "mov {}, cr4"
);

/// The time stamp counter, after all earlier instructions.
#[must_use]
pub fn rdtsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: both instructions only read the time.
    unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Lets interrupts in.
pub fn enable_interrupts() {
    // SAFETY: the descriptor table is loaded before any guest code runs.
    unsafe { asm!("sti", "nop") };
}

/// Keeps interrupts out.
pub fn disable_interrupts() {
    // SAFETY: delaying interrupts breaks no memory.
    unsafe { asm!("cli") };
}

/// Lets interrupts in and waits for one, without a gap between the two.
pub fn wait_for_interrupt() {
    // SAFETY: as for `enable_interrupts`; HLT waits.
    unsafe { asm!("sti", "hlt", "cli") };
}

/// HLT as it stands, interrupts on or off.
pub fn halt() {
    // SAFETY: HLT waits.
    unsafe { asm!("hlt") };
}

/// Calls whatever code lies at `gpa`.
///
/// # Errors
/// The fault the first instruction there raised.
pub fn call(gpa: u64) {
    // SAFETY: nothing after this call is relied on: what lies there decides.
    unsafe { asm!("call {}", in(reg) gpa, clobber_abi("C")) };
}

/// Ends in a triple fault: the descriptor table is emptied, then an exception raised.
pub fn triple_fault() -> ! {
    #[repr(C, packed)]
    struct Empty(u16, u64);
    let empty = Empty(0, 0);
    // SAFETY: nothing runs after this, by intent.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &raw const empty, options(noreturn)) };
}

/// This vCPU's index, which [`set_index`] stored.
#[must_use]
pub fn index() -> usize {
    let value: usize;
    // SAFETY: GS points at the index since the runtime brought this vCPU up.
    unsafe { asm!("mov {}, gs:[0]", out(reg) value, options(nostack, readonly)) };
    value
}

/// Points GS at this vCPU's index.
pub(crate) fn set_index(place: &'static usize) {
    const GS_BASE: u32 = 0xc000_0101;
    if let Err(fault) = wrmsr(GS_BASE, (&raw const *place) as u64) {
        panic!("the GS base is refused: {fault:?}");
    }
}
