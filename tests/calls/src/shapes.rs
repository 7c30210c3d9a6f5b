//! What each hypercall takes.

use abi::hypercall::{
    CONSOLE_IO, DM_OP, DOMCTL, EVENT_CHANNEL_OP, GRANT_TABLE_OP, HVM_OP, HYPFS_OP, MEMORY_OP,
    PLATFORM_OP, SCHED_OP, SET_TIMER_OP, SYSCTL, VCPU_OP, VM_ASSIST, XEN_VERSION,
};
use abi::{event_channel as evtchn, grant_table as gnttab, hvm, memory, sched, vcpu};

/// Which registers a call looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registers {
    /// A command and a pointer.
    Pointer,
    /// The same, with progress above the command.
    Resumable,
    /// A command, a pointer to an array, and a count.
    Array,
    /// A command, a vCPU and a pointer.
    Vcpu,
    /// A command and a number.
    Numbers,
}

/// What a command takes.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The hypercall.
    pub number: u64,
    /// The command.
    pub command: u64,
    /// How its registers are used.
    pub registers: Registers,
    /// The fields of its structure in memory, a letter each:
    ///
    /// | 8 bits | 16 bits | 32 bits | the caller's width | 64 bits |
    /// |---|---|---|---|---|
    /// | `b` any | `d` domain | `p` port | `g` frame | `G` frame |
    /// | | `h` number | `v` vCPU | `k` frame or index | `A` address |
    /// | | `e` offset | `n` number, `i` below 40 | `a` pointer | `q` any |
    /// | | | `o` offset, `r` grant or handle, `x` any | `l` number | |
    ///
    /// A `|` ends a structure within it.
    pub fields: &'static str,
    /// It may end the domain that calls, or stop the vCPU for good.
    pub ends: bool,
}

const fn shape(number: u64, command: u64, registers: Registers, fields: &'static str) -> Shape {
    Shape {
        number,
        command,
        registers,
        fields,
        ends: false,
    }
}

const fn event(command: u64, fields: &'static str) -> Shape {
    shape(EVENT_CHANNEL_OP, command, Registers::Pointer, fields)
}

const fn schedule(command: u64, fields: &'static str) -> Shape {
    shape(SCHED_OP, command, Registers::Pointer, fields)
}

const fn of_vcpu(command: u64, fields: &'static str) -> Shape {
    shape(VCPU_OP, command, Registers::Vcpu, fields)
}

const fn memory(command: u64, fields: &'static str) -> Shape {
    shape(MEMORY_OP, command, Registers::Resumable, fields)
}

const fn grant(command: u64, fields: &'static str) -> Shape {
    shape(GRANT_TABLE_OP, command, Registers::Array, fields)
}

const fn machine(command: u64, fields: &'static str) -> Shape {
    shape(HVM_OP, command, Registers::Pointer, fields)
}

const fn version(command: u64) -> Shape {
    shape(XEN_VERSION, command, Registers::Pointer, "nn")
}

const fn ends(shape: Shape) -> Shape {
    Shape {
        ends: true,
        ..shape
    }
}

/// Every command that does something, and some that do not. Those that are at the root of most
/// others are here more than once.
pub const SHAPES: &[Shape] = &[
    event(evtchn::BIND_INTERDOMAIN, "dhpp"),
    event(evtchn::BIND_INTERDOMAIN, "dhpp"),
    event(evtchn::BIND_VIRQ, "nvp"),
    event(evtchn::BIND_PIRQ, "nnp"),
    event(evtchn::CLOSE, "p"),
    event(evtchn::SEND, "p"),
    event(evtchn::SEND, "p"),
    event(evtchn::STATUS, "dhpnnnn"),
    event(evtchn::ALLOC_UNBOUND, "ddp"),
    event(evtchn::ALLOC_UNBOUND, "ddp"),
    event(evtchn::BIND_IPI, "vp"),
    event(evtchn::BIND_VCPU, "pv"),
    event(evtchn::UNMASK, "p"),
    event(evtchn::RESET, "d"),
    event(evtchn::INIT_CONTROL, "Govq"),
    event(evtchn::EXPAND_ARRAY, "G"),
    event(evtchn::SET_PRIORITY, "pn"),
    event(evtchn::RESET_CONT, "d"),
    schedule(sched::YIELD, ""),
    ends(schedule(sched::BLOCK, "")),
    ends(schedule(sched::SHUTDOWN, "n")),
    ends(schedule(sched::POLL, "anq")),
    schedule(sched::REMOTE_SHUTDOWN, "dhn"),
    schedule(sched::SHUTDOWN_CODE, "n"),
    ends(schedule(sched::WATCHDOG, "nx")),
    schedule(sched::PIN_OVERRIDE, "n"),
    of_vcpu(vcpu::INITIALISE, "nnxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    of_vcpu(vcpu::UP, ""),
    ends(of_vcpu(vcpu::DOWN, "")),
    of_vcpu(vcpu::IS_UP, ""),
    of_vcpu(vcpu::GET_RUNSTATE_INFO, "qqqqqq"),
    of_vcpu(vcpu::REGISTER_RUNSTATE_MEMORY_AREA, "A"),
    of_vcpu(vcpu::SET_PERIODIC_TIMER, "q"),
    of_vcpu(vcpu::STOP_PERIODIC_TIMER, ""),
    of_vcpu(vcpu::SET_SINGLESHOT_TIMER, "qn"),
    of_vcpu(vcpu::STOP_SINGLESHOT_TIMER, ""),
    of_vcpu(vcpu::REGISTER_VCPU_INFO, "Go"),
    of_vcpu(vcpu::SEND_NMI, ""),
    of_vcpu(vcpu::GET_PHYSID, ""),
    of_vcpu(vcpu::REGISTER_VCPU_TIME_MEMORY_AREA, "A"),
    of_vcpu(vcpu::REGISTER_RUNSTATE_PHYS_AREA, "A"),
    of_vcpu(vcpu::REGISTER_VCPU_TIME_PHYS_AREA, "A"),
    shape(SET_TIMER_OP, 0, Registers::Numbers, ""),
    memory(memory::INCREASE_RESERVATION, "alnnd"),
    memory(memory::DECREASE_RESERVATION, "alnnd"),
    memory(memory::DECREASE_RESERVATION, "alnnd"),
    memory(memory::POPULATE_PHYSMAP, "alnnd"),
    memory(memory::POPULATE_PHYSMAP, "alnnd"),
    memory(memory::MAXIMUM_RAM_PAGE, ""),
    memory(memory::CURRENT_RESERVATION, "d"),
    memory(memory::MAXIMUM_RESERVATION, "d"),
    memory(memory::ADD_TO_PHYSMAP, "dhnkg"),
    memory(memory::ADD_TO_PHYSMAP, "dhnkg"),
    memory(memory::ADD_TO_PHYSMAP_BATCH, "dhhdaaa"),
    memory(memory::MEMORY_MAP, "na"),
    memory(memory::SET_MEMORY_MAP, "dna"),
    memory(memory::MAXIMUM_GPFN, "d"),
    memory(memory::REMOVE_FROM_PHYSMAP, "dg"),
    memory(memory::REMOVE_FROM_PHYSMAP, "dg"),
    memory(memory::SET_POD_TARGET, "qqqqd"),
    memory(memory::GET_SHARING_FREED_PAGES, ""),
    memory(memory::ACCESS_OP, "hdq"),
    memory(memory::CLAIM_PAGES, "alnnd"),
    memory(memory::GET_VNUMAINFO, "dhnnn"),
    memory(memory::RESERVED_DEVICE_MEMORY_MAP, "nn"),
    memory(memory::ACQUIRE_RESOURCE, "dhnnnqa"),
    grant(gnttab::MAP_GRANT_REF, "AnrdhnA"),
    grant(gnttab::MAP_GRANT_REF, "AnrdhnA"),
    grant(gnttab::UNMAP_GRANT_REF, "AArh"),
    grant(gnttab::UNMAP_GRANT_REF, "AArh"),
    grant(gnttab::SETUP_TABLE, "dnha"),
    grant(gnttab::COPY, "kde|kde|ehh"),
    grant(gnttab::COPY, "kde|kde|ehh"),
    grant(gnttab::QUERY_SIZE, "dnnh"),
    grant(gnttab::SET_VERSION, "n"),
    grant(gnttab::GET_VERSION, "dn"),
    grant(gnttab::SWAP_GRANT_REF, "rrh"),
    grant(gnttab::CACHE_FLUSH, "qhhn"),
    machine(hvm::SET_PARAM, "dhiq"),
    machine(hvm::GET_PARAM, "dhiq"),
    machine(hvm::FLUSH_TLBS, ""),
    machine(hvm::PAGETABLE_DYING, "dG"),
    machine(hvm::GET_TIME, "q"),
    machine(hvm::GET_MEM_TYPE, "dhG"),
    machine(hvm::SET_EVTCHN_UPCALL_VECTOR, "vb"),
    machine(hvm::XENTRACE, "hhq"),
    machine(hvm::GUEST_REQUEST_VM_EVENT, ""),
    machine(hvm::ALTP2M, "nnq"),
    version(0),
    version(1),
    version(2),
    version(3),
    version(4),
    version(5),
    version(6),
    version(7),
    version(8),
    version(9),
    version(10),
    shape(VM_ASSIST, 0, Registers::Numbers, ""),
    shape(VM_ASSIST, 1, Registers::Numbers, ""),
    shape(CONSOLE_IO, 0, Registers::Array, "b"),
    shape(PLATFORM_OP, 0, Registers::Pointer, "nnq"),
    shape(SYSCTL, 0, Registers::Pointer, "nnq"),
    shape(DOMCTL, 0, Registers::Pointer, "nndh"),
    shape(DM_OP, 0, Registers::Array, "aq"),
    shape(HYPFS_OP, 0, Registers::Array, "q"),
];
