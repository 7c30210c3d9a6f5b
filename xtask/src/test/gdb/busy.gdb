# A session on a machine that executes its guest's code, which never stops by itself.

echo == guest\n
tessera pcpus
tessera domains
tessera exits d1v0 2
tessera evtchn 1
tessera log 1
python
try:
    gdb.execute("tessera vmcs d1v0")
    print("not refused: tessera vmcs")
except gdb.error as error:
    print("refused:", error)
end

echo == root mode\n
tessera root 0
tessera pcpus
tessera vmcs d1v0 EXIT_REASON GUEST_RIP GUEST_CR3
echo == end\n
detach
