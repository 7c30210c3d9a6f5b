//! What only the pCPU that runs a vCPU touches: its VMCS and all state beside it.
#![expect(
    unsafe_code,
    reason = "sets up VMCSs, which name memory the CPU uses by itself"
)]

use alloc::sync::Arc;

use abi::{DomId, VcpuId};
use vmx::caps::Features;
use vmx::cpu::speculation::Mitigations;
use vmx::vmcs::{CurrentVmcs, Eptp, HostState, Segment, SegmentName, Vmcs, VmcsSetup, field};
use vmx::{GuestRegs, InveptKind, VmxOn};

use super::ext_state::ExtState;
use super::inject::PendingEvents;
use super::timers::Timers;
use super::trace::ExitTrace;
use super::{InitialState, Vcpu, VcpuInfo};
use crate::attention::Attention;
use crate::domain::{Domain, VcpuRef};
use crate::emulate;
use crate::evtchn::VcpuSet;
use crate::exit::{cr as guest_cr, exception};
use crate::fault::CrashReason;
use crate::intr::vlapic::{self, VLapic};
use crate::machine::{self, Machine};
use crate::mm::directmap;
use crate::mm::frame::Owner;
use crate::mm::p2m::PageCache;
use crate::mm::page::PageRef;
use crate::percpu::PerCpu;
use crate::policy;
use crate::policy::cpuid::CpuidPolicy;
use crate::policy::msr::{MsrPolicy, MsrState, PAT_RESET};
use crate::stats::ExitStats;
use crate::time::{self, Tsc};

/// The state of a vCPU, for the pCPU that runs it.
#[derive(Debug)]
pub struct Context {
    /// Its VMCS.
    pub vmcs: Vmcs,
    /// The frame of the VMCS; after `vmcs`, which must not outlive it.
    _vmcs_page: PageRef,
    /// The pCPU that the VMCS has been set up for, if it has.
    ready_on: Option<u32>,
    /// Everything else.
    pub cpu: CpuContext,
}

/// The state of a vCPU outside its VMCS.
#[derive(Debug)]
pub struct CpuContext {
    /// General-purpose registers.
    pub regs: GuestRegs,
    /// Its local APIC.
    pub lapic: VLapic,
    /// MSRs that are kept in software.
    pub msrs: MsrState,
    /// What its exits were.
    pub stats: ExitStats,
    /// The last of them, in builds for debugging.
    pub trace: ExitTrace,
    /// Registers that no exit touches.
    pub ext: ExtState,
    /// Its Xen timers.
    pub timers: Timers,
    /// Pages of the domain that it touched last by hypercall or emulated instruction.
    pub pages: PageCache,
    /// The instruction that was emulated last.
    pub decoded: emulate::Recent,
    /// Events for it alone.
    pub pending: PendingEvents,
    /// Where its `vcpu_info` is; a copy of [`super::Vcpu::info`].
    pub info: Option<VcpuInfo>,
    /// CR4 bits that the guest may set.
    pub cr4_allowed: u64,
    /// What is done before every VM entry; a copy of the machine's.
    pub mitigations: Mitigations,
    /// VM entries need no more than the VMX-preemption timer set.
    pub plain_entry: bool,
    /// The CPU has that timer.
    pub has_preemption_timer: bool,
    /// How much slower than the TSC it counts, as a power of two.
    pub preemption_timer_shift: u8,
    /// How many ticks of the TSC that timer can count; no end without it.
    pub timer_reach: u64,
    /// Why the domain is to be ended, with [`Next::Crash`](crate::exit::Next::Crash).
    pub crash: Option<CrashReason>,
    /// True while an interrupt-window or NMI-window exit is asked for.
    pub windows: bool,
    /// When the guest must be left at the latest; 0 when a deadline has changed and it is to be
    /// found anew.
    pub stop: Tsc,
    /// True while the vCPU sleeps in `SCHEDOP_poll`.
    pub polling: bool,
    /// What the local APIC's timer was last set to in this turn, without a preemption timer.
    pub armed: Tsc,
    /// IA32_EFER as it was last written; LMA is not kept here.
    pub efer: u64,
    /// The deliveries of events have failed so that the CPU would shut down.
    pub triple_fault: bool,
    /// What to add to the host TSC to get the guest's.
    tsc_offset: u64,
}

/// A vCPU on its pCPU: its VMCS is current, its state loaded.
#[derive(Debug)]
pub struct Running<'a> {
    /// Its domain.
    pub domain: &'a Arc<Domain>,
    /// The vCPU, as others see it.
    pub vcpu: &'a VcpuRef,
    /// The same, found already.
    pub shared: &'a Vcpu,
    /// The set of it alone.
    pub alone: VcpuSet,
    /// Its VMCS.
    pub vmcs: CurrentVmcs<'a>,
    /// Its other state.
    pub cpu: &'a mut CpuContext,
    /// What its pCPU looks at before it goes straight back into the guest.
    pub attention: &'a Attention,
}

impl Context {
    /// The context of a new vCPU, or `None` when memory is short.
    #[must_use]
    pub fn new(
        machine: &Machine,
        id: DomId,
        vcpu: VcpuId,
        cpuid: &CpuidPolicy,
        msrs: &MsrPolicy,
        tsc_offset: u64,
    ) -> Option<Self> {
        let vmcs_page = PageRef::alloc(Owner::Tables(id))?;
        let region = vmcs_page.mfn().hpa();
        // SAFETY: the frame is held by `vmcs_page` for as long as the VMCS lives, and nobody
        // else has it.
        let vmcs = unsafe { Vmcs::new(directmap::ptr(region), region, machine.controls.revision) };
        let lapic = VLapic::new(vlapic::Config {
            apic_id: policy::cpuid::apic_id(vcpu),
            bootstrap: vcpu.0 == 0,
            tsc_khz: u32::try_from(time::tsc_khz()).unwrap_or(u32::MAX),
            phys_bits: machine.phys_bits,
        });
        let has_preemption_timer = machine
            .controls
            .features
            .contains(Features::PREEMPTION_TIMER);
        let preemption_timer_shift = machine.controls.preemption_timer_shift;
        let cpu = CpuContext {
            regs: GuestRegs::new(),
            lapic,
            msrs: MsrState::RESET,
            cr4_allowed: policy::cr4::allowed(cpuid),
            ext: ExtState::new(msrs.switched())?,
            stats: ExitStats::new(),
            trace: ExitTrace::new(),
            timers: Timers::default(),
            pages: PageCache::new(),
            decoded: emulate::Recent::new(),
            pending: PendingEvents::default(),
            info: None,
            mitigations: machine.mitigations,
            plain_entry: has_preemption_timer && !machine.mitigations.needed_before_entry(),
            has_preemption_timer,
            preemption_timer_shift,
            timer_reach: if has_preemption_timer {
                u64::from(u32::MAX - 1) << (preemption_timer_shift & 31)
            } else {
                u64::MAX
            },
            crash: None,
            windows: false,
            stop: Tsc(0),
            polling: false,
            armed: Tsc::NEVER,
            efer: 0,
            triple_fault: false,
            tsc_offset,
        };
        Some(Self {
            vmcs,
            _vmcs_page: vmcs_page,
            ready_on: None,
            cpu,
        })
    }
}

impl CpuContext {
    /// The guest's TSC at a host TSC.
    #[must_use]
    pub const fn guest_tsc(&self, now: Tsc) -> u64 {
        now.0.wrapping_add(self.tsc_offset)
    }

    /// When the local APIC's timer is due.
    #[must_use]
    pub fn lapic_deadline(&self) -> Tsc {
        self.lapic
            .next_deadline()
            .map_or(Tsc::NEVER, |guest| host_tsc(guest, self.tsc_offset))
    }

    /// What is added to the host TSC to get the guest's.
    #[must_use]
    pub const fn tsc_offset(&self) -> u64 {
        self.tsc_offset
    }

    /// Changes what is added to the host TSC; the VMCS is the caller's to write.
    pub fn set_tsc_offset(&mut self, offset: u64) {
        self.tsc_offset = offset;
    }

    /// Raises the local APIC's timer interrupt, if it is due. What is due on the host's clock
    /// counts as due on the guest's, even if the guest has made its own one wrap.
    pub fn expire_lapic_timer(&mut self, now: Tsc) {
        let guest = self.guest_tsc(now);
        let due = self.lapic.next_deadline();
        let reached = due.filter(|&due| host_tsc(due, self.tsc_offset) <= now);
        self.lapic
            .expire(reached.map_or(guest, |due| due.max(guest)));
    }

    /// What INIT resets.
    pub fn init_reset(&mut self) {
        self.lapic.init();
        self.ext.init();
        self.pending = PendingEvents::default();
        self.triple_fault = false;
    }
}

/// The host TSC at which a guest's reaches `guest`, where the guest's is `offset` ahead: of a
/// domain that started late, a negative number.
fn host_tsc(guest: u64, offset: u64) -> Tsc {
    let ahead = i128::from(offset.cast_signed());
    let host = i128::from(guest).saturating_sub(ahead).max(0);
    u64::try_from(host).map_or(Tsc::NEVER, Tsc)
}

/// Makes a vCPU ready for its first entry on this pCPU.
///
/// # Errors
/// None today; a pCPU that cannot take the vCPU would end its domain.
pub fn prepare(
    context: &mut Context,
    cpu: &PerCpu,
    vcpu: &VcpuRef,
    vmx: &VmxOn,
) -> Result<(), CrashReason> {
    match context.ready_on.replace(cpu.id) {
        Some(before) if before == cpu.id => return Ok(()),
        Some(_) => {
            arrive(context, vmx);
            return Ok(());
        }
        None => {}
    }
    let machine = machine::get();
    let domain = vcpu.domain();
    let ept_root = domain.p2m.read().root();
    let mut vmcs = context.vmcs.load(vmx);
    let setup = VmcsSetup {
        ept_root,
        vpid: machine::next_vpid(),
        msr_bitmap: domain.msr_bitmap.mfn().hpa(),
        // SAFETY: boot has loaded this pCPU's tables and GS for good before it started the core.
        host: unsafe { HostState::capture() },
    };
    // SAFETY:
    // 1. the p2m maps frames of this domain and frames shared with it only, and lives until
    //    every vCPU of the domain has left its pCPU and its VMCS has been cleared;
    // 2. the bitmap lets through what `policy::msr` lists, which the host does not use or which
    //    VM exits and `ext_state` reload; it is never freed;
    // 3. the host state was captured on this pCPU just now;
    // 4. the controls were negotiated on this machine.
    unsafe { vmcs.init_controls(&machine.controls, &setup) };
    vmcs.write(field::EXCEPTION_BITMAP, exception::BITMAP);
    vmcs.write(field::TSC_OFFSET, context.cpu.tsc_offset);
    vmcs.write(field::CR0_GUEST_HOST_MASK, guest_cr::CR0_OWNED);
    vmcs.write(field::CR4_GUEST_HOST_MASK, !context.cpu.cr4_allowed);
    vmcs.flush_vpid();
    context.cpu.info.clone_from(&vcpu.info.lock());
    Ok(())
}

/// Adapts a VMCS that another pCPU has cleared to this one. Linear translations that this CPU
/// keeps from an earlier stay may be stale; those of the domain's physical memory are looked
/// after as for any pCPU ([`Domain::flush_translations`]).
fn arrive(context: &mut Context, vmx: &VmxOn) {
    let mut vmcs = context.vmcs.load(vmx);
    // SAFETY: boot has loaded this pCPU's tables and GS for good before it started the core.
    let host = unsafe { HostState::capture() };
    // SAFETY: captured on this pCPU just now.
    unsafe { vmcs.set_host_state(&host) };
    vmcs.flush_vpid();
}

/// Drops this pCPU's cached translations of the domain's physical memory.
pub fn flush_ept(domain: &Domain) {
    let machine = machine::get();
    let root = domain.p2m.read().root();
    let controls = &machine.controls;
    let kind = if controls.features.contains(Features::INVEPT_SINGLE) {
        InveptKind::Single(Eptp::new(root, controls).raw())
    } else {
        InveptKind::All
    };
    let flushed = vmx::invept(kind);
    debug_assert!(flushed.is_ok(), "the kind of INVEPT was negotiated");
}

/// Gives a vCPU the registers that it starts with.
pub fn load_initial(v: &mut Running<'_>, state: &InitialState) {
    v.cpu.regs = state.regs;
    v.vmcs.write(field::GUEST_RIP, state.rip);
    v.vmcs.write(field::GUEST_RSP, state.rsp);
    v.vmcs.write(field::GUEST_RFLAGS, state.rflags);
    v.vmcs
        .write(field::GUEST_CR0, guest_cr::cr0_real(state.cr0));
    v.vmcs.write(field::CR0_READ_SHADOW, state.cr0);
    v.vmcs.write(field::GUEST_CR3, state.cr3);
    v.vmcs
        .write(field::GUEST_CR4, guest_cr::cr4_real(state.cr4));
    v.vmcs.write(field::CR4_READ_SHADOW, state.cr4);
    v.cpu.efer = state.efer & !guest_cr::efer::LMA;
    v.vmcs.write(field::GUEST_IA32_EFER, state.efer);
    v.vmcs.set_long_mode(state.efer & guest_cr::efer::LMA != 0);
    let unusable = Segment {
        selector: 0,
        base: 0,
        limit: 0,
        access_rights: 1 << 16,
    };
    let segments = [
        (SegmentName::Cs, state.cs),
        (SegmentName::Ds, state.ds),
        (SegmentName::Es, state.es),
        (SegmentName::Ss, state.ss),
        (SegmentName::Fs, state.fs_gs),
        (SegmentName::Gs, state.fs_gs),
        (SegmentName::Tr, state.tr),
        (SegmentName::Ldtr, unusable),
    ];
    for (name, segment) in segments {
        v.vmcs.set_segment(name, segment);
    }
    v.vmcs.write(field::GUEST_GDTR_BASE, 0);
    v.vmcs.write(field::GUEST_GDTR_LIMIT, 0xffff);
    v.vmcs.write(field::GUEST_IDTR_BASE, 0);
    v.vmcs.write(field::GUEST_IDTR_LIMIT, 0xffff);
    v.vmcs.write(field::GUEST_DR7, DR7_RESET);
    v.vmcs.write(field::GUEST_IA32_SYSENTER_CS, 0);
    v.vmcs.write(field::GUEST_IA32_SYSENTER_ESP, 0);
    v.vmcs.write(field::GUEST_IA32_SYSENTER_EIP, 0);
    v.vmcs.write(field::GUEST_IA32_DEBUGCTL, 0);
    v.vmcs.write(field::GUEST_INTERRUPTIBILITY_STATE, 0);
    v.vmcs.write(field::GUEST_ACTIVITY_STATE, 0);
    v.vmcs.write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
    if machine::get().controls.features.contains(Features::PAT) {
        v.vmcs.write(field::GUEST_IA32_PAT, PAT_RESET);
    }
    v.cpu.pending = PendingEvents::default();
}

/// DR7 after a reset.
const DR7_RESET: u64 = 0x400;

#[cfg(test)]
mod tests {
    use super::host_tsc;
    use crate::time::Tsc;

    #[test]
    fn a_guests_deadline_is_one_of_the_hosts() {
        // A domain that started when the host's TSC was 1000.
        let offset = 1000u64.wrapping_neg();
        assert_eq!(host_tsc(500, offset), Tsc(1500));
        assert_eq!(host_tsc(u64::MAX, offset), Tsc::NEVER);
        // One that has set its TSC ahead.
        assert_eq!(host_tsc(500, 300), Tsc(200));
        assert_eq!(host_tsc(500, 600), Tsc(0));
    }
}
