# A session on a machine that runs an idle Debian guest under KVM.

echo == idle\n
tessera pcpus
tessera domains
tessera vcpus
tessera runq
tessera log 2
tessera evtchn debian
tessera grants 1
tessera ept 1 0x1000000
tessera exits d1v0 4
python
def refused(line):
    try:
        gdb.execute(line)
        print("not refused:", line)
    except gdb.error as error:
        print("refused:", error)

refused("tessera vmcs d1v0")
refused("tessera ept 1 0x1000000000000")
refused("tessera vmcs d7v0")
end

echo == root mode\n
tessera root 0
tessera pcpus
backtrace
tessera vmcs RIP
tessera vmcs d1v0 EXIT_REASON VMCS_LINK HOST_RIP CS_ACCESS
info registers rip rax rcx

echo == break\n
thbreak entry::vm_exit
continue
backtrace 1
tessera exits d1v0 8
tessera vmcs d1v0 EXIT_REASON GUEST_RIP
echo == end\n
detach
