//! Hardware task switches, which VMX leaves to the hypervisor.
//!
//! [`switch`] is pure but for the [`Memory`] it works on. All that can fault in the old task is
//! looked at before anything changes; what goes wrong after that, while the new task's registers
//! are loaded, is a fault of the new task, as on a processor.
//!
//! SDM 3A, chapter "Task Management"; SDM 3C, "Treatment of Task Switches".
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod descriptor;
#[cfg(test)]
mod tests;
mod tss;

use vmx::vmcs::Segment;

use self::descriptor::{Descriptor, Loader, rpl, unusable, virtual_8086};
pub use self::tss::Format;
use self::tss::{Image, MAX_SIZE};
use crate::bits::low32;
use crate::fault::GuestFault;

/// EAX, ECX, EDX, EBX, ESP, EBP, ESI and EDI.
pub type General = [u32; 8];
/// ES, CS, SS, DS, FS and GS.
pub type Selectors = [u16; 6];

const NESTED_TASK: u32 = 1 << 14;
const VIRTUAL_8086: u32 = 1 << 17;
const ALIGNMENT_CHECK: u32 = 1 << 18;
/// The defined flags, and the one that is always set.
const EFLAGS_DEFINED: u32 = 0x003f_7fd5;
const EFLAGS_FIXED: u32 = 2;

/// The type of a TSS descriptor: available, and the flag that makes it busy.
const KIND_TSS: u8 = 1;
const BUSY: u8 = 2;
/// "D/B" of access rights.
const BIG: u32 = 1 << 14;

/// Memory by linear address, as the processor itself accesses it.
pub trait Memory {
    /// Reads at supervisor level.
    ///
    /// # Errors
    /// The page fault.
    fn read(&self, at: u32, bytes: &mut [u8]) -> Result<(), GuestFault>;

    /// Writes at supervisor level.
    ///
    /// # Errors
    /// The page fault.
    fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), GuestFault>;

    /// Says whether [`Memory::write`] would succeed.
    ///
    /// # Errors
    /// The page fault.
    fn check_write(&self, at: u32, length: usize) -> Result<(), GuestFault>;

    /// Writes at a privilege level; `ac` is EFLAGS.AC.
    ///
    /// # Errors
    /// The page fault.
    fn push(&mut self, at: u32, bytes: &[u8], cpl: u8, ac: bool) -> Result<(), GuestFault>;

    /// Changes to other page tables, if paging is on; false when CR3 is no good.
    fn load_cr3(&mut self, cr3: u32) -> bool;
}

/// The registers that a switch changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    /// EIP.
    pub eip: u32,
    /// EFLAGS.
    pub eflags: u32,
    /// The general-purpose registers.
    pub general: General,
    /// The segment registers, in the order of [`Selectors`].
    pub segments: [Segment; 6],
    /// LDTR.
    pub ldtr: Segment,
    /// TR.
    pub tr: Segment,
    /// GDTR: base.
    pub gdt_base: u32,
    /// GDTR: limit.
    pub gdt_limit: u32,
}

/// What started a switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// A far CALL.
    Call,
    /// A far JMP.
    Jmp,
    /// IRET with EFLAGS.NT set.
    Iret,
    /// An interrupt or exception through a task gate.
    Event {
        /// True unless an instruction asked for it: INT n, INT3 or INTO.
        external: bool,
        /// The error code to push for the new task.
        error: Option<u32>,
    },
}

/// A switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// The selector of the new task's TSS.
    pub selector: u16,
    /// What started it.
    pub cause: Cause,
    /// Where the old task goes on.
    pub return_eip: u32,
}

/// How the new task begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begun {
    /// With its first instruction.
    Clean,
    /// With a debug trap.
    Trap,
    /// With this fault, before its first instruction.
    Fault(GuestFault),
}

/// Switches tasks. The caller sets CR0.TS and clears the local breakpoints in DR7.
///
/// # Errors
/// The fault of the old task, in which nothing has changed.
pub fn switch(
    memory: &mut impl Memory,
    state: &mut State,
    request: &Request,
) -> Result<Begun, GuestFault> {
    let loader = Loader {
        external: matches!(request.cause, Cause::Event { external: true, .. }),
    };
    let new = new_task(memory, state, request, loader)?;
    let format = Format::of(new.kind());
    check_memory(memory, state, request, loader, new)?;

    save(memory, state, request)?;
    let tr = new.segment(request.selector);
    let base = low32(tr.base);
    if request.cause.nests() {
        memory.write(base, &state.tr.selector.to_le_bytes())?;
    } else {
        set_busy(memory, old_descriptor(state), false)?;
    }
    set_busy(memory, new.at, true)?;
    let mut tss = [0; MAX_SIZE];
    memory.read(base, tss.get_mut(..format.size()).unwrap_or_default())?;
    state.tr = Segment {
        access_rights: tr.access_rights | u32::from(BUSY),
        ..tr
    };
    let image = format.load(&tss);
    Ok(match begin(memory, state, request, loader, &image) {
        Err(fault) => Begun::Fault(fault),
        Ok(()) if image.trap => Begun::Trap,
        Ok(()) => Begun::Clean,
    })
}

impl Cause {
    /// True when the new task is to return to the old one, which stays busy.
    const fn nests(self) -> bool {
        matches!(self, Self::Call | Self::Event { .. })
    }
}

/// The descriptor of the new task, checked.
fn new_task(
    memory: &impl Memory,
    state: &State,
    request: &Request,
    loader: Loader,
) -> Result<Descriptor, GuestFault> {
    let selector = request.selector;
    let code = loader.code(selector);
    let returns = request.cause == Cause::Iret;
    let wrong = if returns {
        GuestFault::Ts(code)
    } else {
        GuestFault::Gp(code)
    };
    // A TSS is in the GDT, and the first place of that has none.
    if selector & 4 != 0 || selector & !3 == 0 {
        return Err(wrong);
    }
    let found = Descriptor::read(memory, state, selector)?.ok_or(wrong)?;
    let wanted = if returns { KIND_TSS | BUSY } else { KIND_TSS };
    // Bit 3 is the format.
    if !found.is_system() || found.kind() & 7 != wanted {
        return Err(wrong);
    }
    if !found.is_present() {
        return Err(GuestFault::Np(code));
    }
    if (found.limit() as usize) < Format::of(found.kind()).size().saturating_sub(1) {
        return Err(GuestFault::Ts(code));
    }
    Ok(found)
}

/// Sees to it that nothing faults once the switch has begun to write.
fn check_memory(
    memory: &impl Memory,
    state: &State,
    request: &Request,
    loader: Loader,
    new: Descriptor,
) -> Result<(), GuestFault> {
    let (start, end) = current_format(state).saved();
    if (state.tr.limit as usize) < end.saturating_sub(1) {
        return Err(loader.invalid(state.tr.selector));
    }
    memory.check_write(
        offset(low32(state.tr.base), start),
        end.saturating_sub(start),
    )?;
    let base = low32(new.segment(0).base);
    let mut tss = [0; MAX_SIZE];
    let size = Format::of(new.kind()).size();
    memory.read(base, tss.get_mut(..size).unwrap_or_default())?;
    if request.cause.nests() {
        memory.check_write(base, 2)?;
    } else {
        memory.check_write(old_descriptor(state), 8)?;
    }
    memory.check_write(new.at, 8)
}

/// The format of the TSS in TR.
fn current_format(state: &State) -> Format {
    Format::of((state.tr.access_rights & 0xf) as u8)
}

/// Where the old task's descriptor is.
fn old_descriptor(state: &State) -> u32 {
    state
        .gdt_base
        .wrapping_add(u32::from(state.tr.selector & !7))
}

fn offset(base: u32, by: usize) -> u32 {
    base.wrapping_add(u32::try_from(by).unwrap_or(0))
}

/// Writes the registers to the old task's TSS.
fn save(memory: &mut impl Memory, state: &State, request: &Request) -> Result<(), GuestFault> {
    let format = current_format(state);
    let (start, end) = format.saved();
    let at = offset(low32(state.tr.base), start);
    let mut tss = [0; MAX_SIZE];
    // What lies between the selectors stays as it is.
    memory.read(at, tss.get_mut(start..end).unwrap_or_default())?;
    let eflags = if request.cause == Cause::Iret {
        state.eflags & !NESTED_TASK
    } else {
        state.eflags
    };
    let selectors = state.segments.map(|segment| segment.selector);
    let eip = request.return_eip;
    format.save(&mut tss, eip, eflags, &state.general, &selectors);
    memory.write(at, tss.get(start..end).unwrap_or_default())
}

/// Sets or clears the busy flag of a TSS descriptor.
fn set_busy(memory: &mut impl Memory, descriptor: u32, busy: bool) -> Result<(), GuestFault> {
    let at = descriptor.wrapping_add(5);
    let mut access = [0];
    memory.read(at, &mut access)?;
    let [access] = access;
    let access = if busy { access | BUSY } else { access & !BUSY };
    memory.write(at, &[access])
}

/// Loads the new task's registers. A fault is one of the new task.
fn begin(
    memory: &mut impl Memory,
    state: &mut State,
    request: &Request,
    loader: Loader,
    image: &Image,
) -> Result<(), GuestFault> {
    state.eip = image.eip;
    state.eflags = image.eflags & EFLAGS_DEFINED | EFLAGS_FIXED;
    if request.cause.nests() {
        state.eflags |= NESTED_TASK;
    }
    state.general = image.general;
    let v86 = state.eflags & VIRTUAL_8086 != 0;
    if v86 {
        state.segments = image.selectors.map(virtual_8086);
    } else {
        stand_in(state, image);
    }
    state.ldtr = unusable(image.ldt);
    if let Some(cr3) = image.cr3
        && !memory.load_cr3(cr3)
    {
        return Err(loader.invalid(request.selector));
    }
    state.ldtr = loader.ldt(memory, state, image.ldt)?;
    if !v86 {
        load_segments(memory, state, loader, image)?;
    }
    push_error(memory, state, request, loader)
}

/// Segment registers that hold the new selectors and nothing of the old task, for as long as
/// their descriptors have not been loaded: a fault is delivered from there.
fn stand_in(state: &mut State, image: &Image) {
    state.segments = image.selectors.map(unusable);
    let [_, code, stack, ..] = &mut state.segments;
    let dpl = u32::from(rpl(code.selector)) << 5;
    for (segment, rights) in [(code, 0xc09b), (stack, 0xc093)] {
        segment.limit = u32::MAX;
        segment.access_rights = rights | dpl;
    }
}

fn load_segments(
    memory: &mut impl Memory,
    state: &mut State,
    loader: Loader,
    image: &Image,
) -> Result<(), GuestFault> {
    let [es, cs, ss, ds, fs, gs] = image.selectors;
    let cpl = rpl(cs);
    // Both at once: a VM entry refuses two that do not fit each other.
    let loaded_cs = loader.code_segment(memory, state, cs)?;
    let loaded_ss = loader.stack_segment(memory, state, ss, cpl)?;
    let [_, code, stack, ..] = &mut state.segments;
    (*code, *stack) = (loaded_cs, loaded_ss);
    for (index, selector) in [(0, es), (3, ds), (4, fs), (5, gs)] {
        let loaded = loader.data_segment(memory, state, selector, cpl)?;
        if let Some(segment) = state.segments.get_mut(index) {
            *segment = loaded;
        }
    }
    Ok(())
}

/// Pushes the error code of the exception that started the switch.
fn push_error(
    memory: &mut impl Memory,
    state: &mut State,
    request: &Request,
    loader: Loader,
) -> Result<(), GuestFault> {
    let Cause::Event {
        error: Some(error), ..
    } = request.cause
    else {
        return Ok(());
    };
    let bytes = error.to_le_bytes();
    let bytes = match current_format(state) {
        Format::Bits16 => bytes.get(..2).unwrap_or(&bytes),
        Format::Bits32 => &bytes,
    };
    let [_, _, stack, ..] = state.segments;
    let mask = if stack.access_rights & BIG != 0 {
        u32::MAX
    } else {
        0xffff
    };
    let size = u32::try_from(bytes.len()).unwrap_or(4);
    let [_, _, _, _, esp, ..] = &mut state.general;
    let top = esp.wrapping_sub(size) & mask;
    if !stack_holds(&stack, top, size, mask) {
        return Err(GuestFault::Ss(loader.code(0)));
    }
    let at = low32(stack.base).wrapping_add(top);
    let ac = state.eflags & ALIGNMENT_CHECK != 0;
    memory.push(at, bytes, stack.dpl(), ac)?;
    *esp = *esp & !mask | top;
    Ok(())
}

/// True when the stack segment has these bytes.
fn stack_holds(stack: &Segment, top: u32, size: u32, mask: u32) -> bool {
    let Some(last) = top.checked_add(size.saturating_sub(1)) else {
        return false;
    };
    // Bit 2 of a data segment's type: it grows downwards, and its limit is below it.
    if stack.access_rights & 4 != 0 {
        top > stack.limit && last <= mask
    } else {
        last <= stack.limit
    }
}
