//! Says hello and powers off: entry, start info, memory map, console, shutdown.
#![no_std]
#![no_main]

use abi::start_info::{MAGIC, MemmapEntry, VERSION, memmap};
use guests::report::Report;
use guests::{check, check_eq, memory, runtime, say, xen};

guests::main!(run);

fn run(t: &mut Report) {
    say!("hello from a micro-guest");
    check!(t, xen::present(), "CPUID shows Xen's signature");
    let info = runtime::start_info();
    check_eq!(t, info.magic, MAGIC, "start info magic");
    check!(t, info.version >= VERSION, "start info has a memory map");
    let mut buffer = [0; 128];
    say!(
        "command line: {}",
        memory::read_string(info.cmdline_paddr, &mut buffer)
    );

    let mut ram = 0;
    let mut end = 0;
    for index in 0..u64::from(info.memmap_entries) {
        let size = size_of::<MemmapEntry>() as u64;
        let Some(entry) = memory::read::<MemmapEntry>(info.memmap_paddr + index * size) else {
            break;
        };
        say!(
            "memory {:#x}+{:#x} type {}",
            entry.addr,
            entry.size,
            entry.kind
        );
        check!(t, entry.addr >= end, "memory map entry {index} is in order");
        end = entry.addr.saturating_add(entry.size);
        if entry.kind == memmap::RAM {
            ram += entry.size;
        }
    }
    check!(t, ram >= 4 << 20, "at least 4 MiB of RAM ({ram} bytes)");
    check_eq!(
        t,
        memory::read::<u64>(info.rsdp_paddr),
        Some(0x2052_5450_2044_5352),
        "ACPI root"
    );
}
