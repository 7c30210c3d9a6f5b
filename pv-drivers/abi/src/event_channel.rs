//! Event channels: commands, arguments, the FIFO layout, virtual interrupts
//! (`public/event_channel.h`, `public/xen.h`).
//!
//! All argument structs are the same for 32- and 64-bit callers.

use crate::layout::guest_structs;

/// `EVTCHNOP_bind_interdomain`.
pub const BIND_INTERDOMAIN: u64 = 0;
/// `EVTCHNOP_bind_virq`.
pub const BIND_VIRQ: u64 = 1;
/// `EVTCHNOP_bind_pirq`.
pub const BIND_PIRQ: u64 = 2;
/// `EVTCHNOP_close`.
pub const CLOSE: u64 = 3;
/// `EVTCHNOP_send`.
pub const SEND: u64 = 4;
/// `EVTCHNOP_status`.
pub const STATUS: u64 = 5;
/// `EVTCHNOP_alloc_unbound`.
pub const ALLOC_UNBOUND: u64 = 6;
/// `EVTCHNOP_bind_ipi`.
pub const BIND_IPI: u64 = 7;
/// `EVTCHNOP_bind_vcpu`.
pub const BIND_VCPU: u64 = 8;
/// `EVTCHNOP_unmask`.
pub const UNMASK: u64 = 9;
/// `EVTCHNOP_reset`.
pub const RESET: u64 = 10;
/// `EVTCHNOP_init_control`.
pub const INIT_CONTROL: u64 = 11;
/// `EVTCHNOP_expand_array`.
pub const EXPAND_ARRAY: u64 = 12;
/// `EVTCHNOP_set_priority`.
pub const SET_PRIORITY: u64 = 13;
/// `EVTCHNOP_reset_cont`.
pub const RESET_CONT: u64 = 14;

/// Values of [`Status::status`].
pub mod status {
    /// The port is free.
    pub const CLOSED: u32 = 0;
    /// The port waits for its remote domain.
    pub const UNBOUND: u32 = 1;
    /// The port is one end of a channel between two domains.
    pub const INTERDOMAIN: u32 = 2;
    /// The port carries a physical interrupt.
    pub const PIRQ: u32 = 3;
    /// The port carries a virtual interrupt.
    pub const VIRQ: u32 = 4;
    /// The port carries interrupts from one vCPU to another.
    pub const IPI: u32 = 5;
}

guest_structs! {
    /// Argument of [`BIND_INTERDOMAIN`].
    pub struct BindInterdomain: 12 {
        /// The domain at the other end.
        pub remote_dom: u16 = 0,
        pad: u16 = 2,
        /// Its unbound port.
        pub remote_port: u32 = 4,
        /// The caller's new port (out).
        pub local_port: u32 = 8,
    }

    /// Argument of [`BIND_VIRQ`].
    pub struct BindVirq: 12 {
        /// The virtual interrupt.
        pub virq: u32 = 0,
        /// The vCPU it is for.
        pub vcpu: u32 = 4,
        /// The new port (out).
        pub port: u32 = 8,
    }

    /// Argument of [`BIND_PIRQ`].
    pub struct BindPirq: 12 {
        /// The physical interrupt.
        pub pirq: u32 = 0,
        /// Bit 0: it may be shared.
        pub flags: u32 = 4,
        /// The new port (out).
        pub port: u32 = 8,
    }

    /// Argument of [`CLOSE`], [`SEND`] and [`UNMASK`].
    pub struct Port: 4 {
        /// The port.
        pub port: u32 = 0,
    }

    /// Argument of [`STATUS`].
    pub struct Status: 24 {
        /// Whose port.
        pub dom: u16 = 0,
        pad: u16 = 2,
        /// The port.
        pub port: u32 = 4,
        /// One of [`status`] (out).
        pub status: u32 = 8,
        /// The vCPU the port notifies (out).
        pub vcpu: u32 = 12,
        /// The remote domain, or the interrupt number (out).
        pub detail: u32 = 16,
        /// The remote port of an interdomain channel (out).
        pub remote_port: u32 = 20,
    }

    /// Argument of [`ALLOC_UNBOUND`].
    pub struct AllocUnbound: 8 {
        /// Whose port.
        pub dom: u16 = 0,
        /// The domain that may bind it.
        pub remote_dom: u16 = 2,
        /// The new port (out).
        pub port: u32 = 4,
    }

    /// Argument of [`BIND_IPI`].
    pub struct BindIpi: 8 {
        /// The vCPU to notify.
        pub vcpu: u32 = 0,
        /// The new port (out).
        pub port: u32 = 4,
    }

    /// Argument of [`BIND_VCPU`].
    pub struct BindVcpu: 8 {
        /// The port.
        pub port: u32 = 0,
        /// The vCPU to notify from now on.
        pub vcpu: u32 = 4,
    }

    /// Argument of [`RESET`] and [`RESET_CONT`].
    pub struct Reset: 2 {
        /// Whose ports.
        pub dom: u16 = 0,
    }

    /// Argument of [`INIT_CONTROL`].
    pub struct InitControl: 24 {
        /// Frame that holds the control block.
        pub control_gfn: u64 = 0,
        /// Where in the frame it starts.
        pub offset: u32 = 8,
        /// The vCPU it is for.
        pub vcpu: u32 = 12,
        /// Width of the link field (out).
        pub link_bits: u8 = 16,
        pad: [u8; 7] = 17,
    }

    /// Argument of [`EXPAND_ARRAY`].
    pub struct ExpandArray: 8 {
        /// Frame to add to the event array.
        pub array_gfn: u64 = 0,
    }

    /// Argument of [`SET_PRIORITY`].
    pub struct SetPriority: 8 {
        /// The port.
        pub port: u32 = 0,
        /// Its new priority.
        pub priority: u32 = 4,
    }
}

/// Layout of the FIFO ABI (`evtchn_fifo_control_block_t`, `event_word_t`).
pub mod fifo {
    /// Queues per vCPU; 0 is the most urgent.
    pub const PRIORITIES: usize = 16;
    /// The queue of a port nobody gave a priority.
    pub const PRIORITY_DEFAULT: u8 = 7;
    /// The least urgent queue.
    pub const PRIORITY_MIN: u32 = 15;

    /// Bytes of a control block.
    pub const CONTROL_BLOCK_SIZE: usize = 72;
    /// `ready`: one bit per priority whose queue may hold events.
    pub const CONTROL_READY: usize = 0;
    /// `head[16]`: first port of each queue.
    pub const CONTROL_HEAD: usize = 8;

    /// The event waits to be handled.
    pub const PENDING: u32 = 1 << 31;
    /// The guest does not want to hear of the event.
    pub const MASKED: u32 = 1 << 30;
    /// The event is on a queue.
    pub const LINKED: u32 = 1 << 29;
    /// The hypervisor is about to change the link.
    pub const BUSY: u32 = 1 << 28;
    /// Width of the link field.
    pub const LINK_BITS: u8 = 17;
    /// Next port on the queue, 0 at its end.
    pub const LINK_MASK: u32 = (1 << LINK_BITS) - 1;

    /// Event words in one page of the array.
    pub const WORDS_PER_PAGE: u32 = 1024;
    /// Ports the link field can name.
    pub const NR_CHANNELS: u32 = 1 << LINK_BITS;
    /// Pages of a full event array.
    pub const MAX_ARRAY_PAGES: usize = (NR_CHANNELS / WORDS_PER_PAGE) as usize;

    const _: () = assert!(CONTROL_HEAD + 4 * PRIORITIES == CONTROL_BLOCK_SIZE);
}

/// Ports of the two-level ABI in a 64-bit guest.
pub const TWO_LEVEL_CHANNELS_64: u32 = 4096;
/// Ports of the two-level ABI in a 32-bit guest.
pub const TWO_LEVEL_CHANNELS_32: u32 = 1024;

/// Virtual interrupts (`VIRQ_*`).
pub mod virq {
    use crate::Virq;

    /// Per vCPU: its one-shot or periodic timer.
    pub const TIMER: Virq = Virq(0);
    /// Per vCPU: a request to dump its state.
    pub const DEBUG: Virq = Virq(1);
    /// Bytes arrived on the emergency console.
    pub const CONSOLE: Virq = Virq(2);
    /// A domain ended.
    pub const DOM_EXC: Virq = Virq(3);
    /// Per vCPU: profiling.
    pub const XENOPROF: Virq = Virq(7);
    /// Per domain: argo messages.
    pub const ARGO: Virq = Virq(11);
    /// Per vCPU: performance counters.
    pub const XENPMU: Virq = Virq(13);
    /// Virtual interrupts that exist.
    pub const COUNT: u32 = 24;
}
