//! Hypercalls: what each mistake gives back.
#![no_std]
#![no_main]

use abi::event_channel::{BindIpi, BindVirq, Port, SEND};
use abi::hvm::param;
use abi::hypercall::{
    CONSOLE_IO, DOMCTL, EVENT_CHANNEL_OP, HVM_OP, MEMORY_OP, MULTICALL, PLATFORM_OP, SCHED_OP,
    VCPU_OP, VM_ASSIST, XEN_VERSION, multicall,
};
use abi::memory::{ADD_TO_PHYSMAP, REMOVE_FROM_PHYSMAP, RemoveFromPhysmap};
use abi::vcpu::{REGISTER_VCPU_INFO, RegisterVcpuInfo};
use abi::xen_version::{self, FeatureInfo, feature};
use abi::{DomId, Errno, event_channel, sched, vcpu};
use guests::report::Report;
use guests::{check, check_eq, ring3, xen};
use pv_drivers::guest::{hvm, timer};
use pv_drivers::hypercall::{Bare, Refused, Reply, bare, command};
use zerocopy::FromZeros;

guests::main!(run);

/// A linear address outside the runtime's 4 GiB.
const UNMAPPED: u64 = 0x1_0000_0000;

fn run(t: &mut Report) {
    unknown(t);
    version(t);
    bad_pointers(t);
    parameters(t);
    vcpus(t);
    events(t);
    scheduling(t);
    batch(t);
    ring_3(t);
}

fn refused(t: &mut Report, reply: Reply, errno: Errno, what: &str) {
    let same = matches!(reply, Err(refused) if refused == errno);
    check!(t, same, "{what}: got {reply:?}, want {errno:?}");
}

fn unknown(t: &mut Report) {
    // PV-only calls, gaps, the end of the table, and numbers far outside it.
    let high = [64, 127, 0x1_0000_0011, 0x4000_0000, u64::MAX];
    for nr in [0_u64, 1, 3, 14, 16, 23, 30, 37, 48, 55, 63]
        .into_iter()
        .chain(high)
    {
        // Only the low half of RAX counts for Xen; a strict reading refuses the rest as well.
        if nr == 0x1_0000_0011 {
            continue;
        }
        refused(t, xen::call(nr, [0; 5]), Errno::Enosys, "unknown hypercall");
    }
    refused(
        t,
        xen::call(XEN_VERSION, [999, 0, 0, 0, 0]),
        Errno::Enosys,
        "unknown version command",
    );
    refused(
        t,
        xen::call(EVENT_CHANNEL_OP, [999, 0, 0, 0, 0]),
        Errno::Enosys,
        "unknown event op",
    );
    refused(
        t,
        xen::call(SCHED_OP, [999, 0, 0, 0, 0]),
        Errno::Enosys,
        "unknown sched op",
    );
    refused(
        t,
        xen::call(HVM_OP, [999, 0, 0, 0, 0]),
        Errno::Enosys,
        "unknown hvm op",
    );
    let reply = xen::call(VCPU_OP, [999, 0, 0, 0, 0]);
    refused(t, reply, Errno::Enosys, "unknown vcpu op");
    for nr in [PLATFORM_OP, DOMCTL] {
        let mut argument = [0_u64; 32];
        let reply = xen::call(nr, [(&raw mut argument) as u64, 0, 0, 0, 0]);
        check!(
            t,
            reply.is_err(),
            "control call {nr} is refused ({reply:?})"
        );
    }
}

fn version(t: &mut Report) {
    let mut info = FeatureInfo::new_zeroed();
    info.submap = 0xffff_ffff;
    check_eq!(
        t,
        command(XEN_VERSION, xen_version::GET_FEATURES, &mut info),
        Ok(0),
        "features"
    );
    let wanted =
        feature::AUTO_TRANSLATED_PHYSMAP | feature::HVM_CALLBACK_VECTOR | feature::HVM_SAFE_PVCLOCK;
    check_eq!(
        t,
        info.submap & wanted,
        wanted,
        "features a PVH kernel needs"
    );
    info.submap_idx = 1;
    let reply = command(XEN_VERSION, xen_version::GET_FEATURES, &mut info);
    refused(t, reply, Errno::Einval, "second feature word");

    let mut extra = [0xaa_u8; 17];
    let reply = xen::command(XEN_VERSION, xen_version::EXTRAVERSION, &mut extra);
    check_eq!(t, reply, Ok(0), "extra version");
    check_eq!(t, extra[16], 0xaa, "extra version keeps to its 16 bytes");
    let end = extra.iter().position(|byte| *byte == 0).unwrap_or(16);
    check!(
        t,
        extra[end..16].iter().all(|byte| *byte == 0),
        "extra version is padded with zeroes"
    );
    check_eq!(
        t,
        xen::call(XEN_VERSION, [xen_version::PAGESIZE, 0, 0, 0, 0]),
        Ok(4096),
        "page size"
    );
    let reply = xen::call(XEN_VERSION, [xen_version::PAGESIZE, 8, 0, 0, 0]);
    refused(t, reply, Errno::Einval, "page size with an argument");
}

fn bad_pointers(t: &mut Report) {
    let calls = [
        (XEN_VERSION, xen_version::EXTRAVERSION, "extra version"),
        (EVENT_CHANNEL_OP, SEND, "send"),
        (HVM_OP, abi::hvm::GET_PARAM, "get_param"),
        (MEMORY_OP, ADD_TO_PHYSMAP, "add_to_physmap"),
        (SCHED_OP, sched::SHUTDOWN, "shutdown"),
    ];
    for (nr, cmd, name) in calls {
        for bad in [UNMAPPED, 0x8000_0000_0000, u64::MAX - 3] {
            refused(t, xen::call(nr, [cmd, bad, 0, 0, 0]), Errno::Efault, name);
        }
        // A struct half of which is mapped.
        refused(
            t,
            xen::call(nr, [cmd, UNMAPPED - 1, 0, 0, 0]),
            Errno::Efault,
            name,
        );
    }
    // A length with the top bit set is a length, not a negative number.
    let reply = xen::call(CONSOLE_IO, [0, 0x8000_0000, UNMAPPED, 0, 0]);
    check!(
        t,
        reply.is_err(),
        "console write of 2 GiB is refused ({reply:?})"
    );
}

fn parameters(t: &mut Report) {
    check!(
        t,
        hvm::get_param(param::CALLBACK_IRQ).is_ok(),
        "callback parameter is readable"
    );
    for index in [param::COUNT, 1000, u32::MAX] {
        refused(
            t,
            hvm::get_param(index),
            Errno::Einval,
            "parameter beyond the last",
        );
        refused(
            t,
            hvm::set_param(index, 0),
            Errno::Einval,
            "setting one beyond the last",
        );
    }
    for index in [param::STORE_PFN, param::CONSOLE_PFN] {
        check!(
            t,
            hvm::set_param(index, 5).is_err(),
            "parameter {index} is read-only"
        );
    }
    let mut other = abi::hvm::Param::new_zeroed();
    other.domid = 0x7fe0;
    let reply = command(HVM_OP, abi::hvm::GET_PARAM, &mut other);
    refused(t, reply, Errno::Esrch, "parameter of a domain that is not");
    refused(
        t,
        hvm::set_upcall_vector(abi::VcpuId(0), 0xf),
        Errno::Einval,
        "upcall vector 15",
    );
    refused(
        t,
        hvm::set_upcall_vector(abi::VcpuId(99), 0x40),
        Errno::Enoent,
        "upcall of vCPU 99",
    );
}

fn vcpus(t: &mut Report) {
    let nobody = abi::VcpuId(77);
    refused(
        t,
        bare(Bare::VcpuIsUp(nobody)),
        Errno::Enoent,
        "is_up of vCPU 77",
    );
    check_eq!(
        t,
        bare(Bare::VcpuIsUp(abi::VcpuId(0))),
        Ok(1),
        "vCPU 0 is up"
    );
    refused(
        t,
        bare(Bare::VcpuUp(nobody)),
        Errno::Enoent,
        "up of vCPU 77",
    );
    refused(
        t,
        timer::set_singleshot(nobody, 1),
        Errno::Enoent,
        "timer of vCPU 77",
    );
    let period = timer::set_periodic(abi::VcpuId(0), 999_999);
    refused(t, period, Errno::Einval, "period below a millisecond");
    check_eq!(
        t,
        timer::stop_periodic(abi::VcpuId(0)),
        Ok(0),
        "stopping a timer not set"
    );

    let mut place = RegisterVcpuInfo::new_zeroed();
    let mut register = |mfn: u64, offset: u32| {
        place.mfn = mfn;
        place.offset = offset;
        xen::call(
            VCPU_OP,
            [REGISTER_VCPU_INFO, 0, (&raw mut place) as u64, 0, 0],
        )
    };
    // Older and newer hypervisors name different reasons for this one.
    check!(
        t,
        register(0x300, 4096).is_err(),
        "vcpu_info outside its page"
    );
    refused(
        t,
        register(0x300, 4096 - 32),
        Errno::Enxio,
        "vcpu_info across a page's end",
    );
    refused(t, register(0x300, 4), Errno::Enxio, "vcpu_info misaligned");
    check!(t, register(1 << 50, 0).is_err(), "vcpu_info in no memory");
    let assist = xen::call(VM_ASSIST, [0, 999, 0, 0, 0]);
    check!(t, assist.is_err(), "unknown assist is refused ({assist:?})");
    let area = xen::call(VCPU_OP, [vcpu::GET_RUNSTATE_INFO, 0, UNMAPPED, 0, 0]);
    refused(t, area, Errno::Efault, "runstate to nowhere");
}

fn events(t: &mut Report) {
    for port in [0, 4000, 131_072, u32::MAX] {
        let reply = command(EVENT_CHANNEL_OP, SEND, &mut Port { port });
        refused(t, reply, Errno::Einval, "send to a port that is free");
        let reply = command(EVENT_CHANNEL_OP, event_channel::CLOSE, &mut Port { port });
        refused(t, reply, Errno::Einval, "closing a port that is free");
    }
    let mut virq = BindVirq {
        virq: 24,
        vcpu: 0,
        port: 0,
    };
    let reply = command(EVENT_CHANNEL_OP, event_channel::BIND_VIRQ, &mut virq);
    refused(t, reply, Errno::Einval, "virtual interrupt 24");
    let mut virq = BindVirq {
        virq: 0,
        vcpu: 55,
        port: 0,
    };
    let reply = command(EVENT_CHANNEL_OP, event_channel::BIND_VIRQ, &mut virq);
    refused(t, reply, Errno::Enoent, "timer of vCPU 55");
    let mut ipi = BindIpi { vcpu: 55, port: 0 };
    let reply = command(EVENT_CHANNEL_OP, event_channel::BIND_IPI, &mut ipi);
    refused(t, reply, Errno::Enoent, "IPI to vCPU 55");
    let mut remove = RemoveFromPhysmap::new_zeroed();
    remove.domid = DomId::SELF.0;
    remove.gpfn = 0xe_0000;
    let reply = xen::command(MEMORY_OP, REMOVE_FROM_PHYSMAP, &mut remove);
    refused(t, reply, Errno::Enoent, "removing what is not there");
}

fn scheduling(t: &mut Report) {
    check_eq!(t, bare(Bare::Yield), Ok(0), "yield");
    let mut poll = sched::Poll::new_zeroed();
    poll.nr_ports = sched::POLL_MAX_PORTS + 1;
    refused(
        t,
        xen::command(SCHED_OP, sched::POLL, &mut poll),
        Errno::Einval,
        "poll of 129 ports",
    );
    poll.nr_ports = 1;
    poll.ports = UNMAPPED;
    refused(
        t,
        xen::command(SCHED_OP, sched::POLL, &mut poll),
        Errno::Efault,
        "poll of nowhere",
    );
    let mut watchdog = sched::Watchdog { id: 3, timeout: 1 };
    let reply = command(SCHED_OP, sched::WATCHDOG, &mut watchdog);
    refused(t, reply, Errno::Einval, "watchdog 3");
    let first = command(
        SCHED_OP,
        sched::WATCHDOG,
        &mut sched::Watchdog {
            id: 0,
            timeout: 600,
        },
    );
    if let Ok(id @ 1..=2) = first {
        let id = if id == 1 { 1 } else { 2 };
        let reply = command(
            SCHED_OP,
            sched::WATCHDOG,
            &mut sched::Watchdog { id, timeout: 0 },
        );
        check_eq!(t, reply, Ok(0), "freeing a watchdog");
    } else {
        check!(t, false, "a first watchdog ({first:?})");
    }
}

fn batch(t: &mut Report) {
    let entry = |op: u64, arg: u64| multicall::Entry {
        op,
        result: 0x5555,
        args: [arg, 0, 0, 0, 0, 0],
    };
    let mut calls = [
        entry(XEN_VERSION, 0),
        entry(63, 0),
        entry(SCHED_OP, sched::YIELD),
    ];
    let reply = xen::call(MULTICALL, [(&raw mut calls) as u64, 3, 0, 0, 0]);
    check_eq!(t, reply, Ok(0), "a batch of three");
    let results = calls.map(|call| call.result);
    let single: Result<u64, Refused> = bare(Bare::XenVersion);
    check_eq!(t, Ok(results[0]), single, "first of the batch");
    check_eq!(t, results[1], Errno::Enosys.to_rax(), "second of the batch");
    check_eq!(t, results[2], 0, "third of the batch");
    let reply = xen::call(MULTICALL, [UNMAPPED, 1, 0, 0, 0]);
    refused(t, reply, Errno::Efault, "a batch nowhere");
}

fn ring_3(t: &mut Report) {
    for nr in [XEN_VERSION, SCHED_OP, 63] {
        let got = ring3::vmcall(nr, 0);
        check_eq!(
            t,
            got,
            Ok(Errno::Eperm.to_rax()),
            "hypercall {nr} from ring 3"
        );
    }
}
