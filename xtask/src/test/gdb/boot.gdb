# A session on a machine without VT-x: it stands at the first Rust line. @CORE_START@ is filled in.

echo == first Rust line\n
backtrace
tessera pcpus
info threads

echo == entry code, after a reset\n
monitor system_reset
delete
thbreak pvh_entry
continue
tessera code 3
tessera log
tessera domains
thbreak *early_long_mode
continue
tessera code 1

echo == start of the second CPU\n
thbreak tessera::smp::start_one
continue
up
print page
thbreak *page.__0
continue
tessera code 2
tessera pcpus
info threads
# gdb knows no segments and takes the breakpoint for another one: it must go by hand.
delete

echo == core\n
thbreak *0x@CORE_START@
continue
backtrace
info symbol $pc
thread 2
backtrace 8
tessera pcpus
tessera root 1
thread 1
up
info locals

echo == refusal\n
thbreak tessera::end::end
continue
tessera log 2
tessera domains
tessera vcpus
tessera runq
print vmm_core::mm::directmap::BASE
print vmm_core::percpu::CPUS[1].data.value.value.value.__0.apic_id
python
for line in (
    "tessera ept",
    "tessera ept 1 0x1000",
    "tessera evtchn nobody",
    "tessera grants 1",
    "tessera exits d1v0",
    "tessera exits 7",
    "tessera log many",
    "tessera vmcs",
    "tessera vmcs d1v0",
    "tessera root 2",
    "tessera root x",
):
    try:
        gdb.execute(line)
        print("not refused:", line)
    except gdb.error as error:
        print("refused:", error)
end
echo == end\n
