"""VMX instructions, executed by a pCPU for gdb, which cannot execute them itself.

`vmx/src/debugger.rs` holds one of each with fixed registers and UD2 behind it, where a breakpoint
stops the pCPU. (A single step would not do: QEMU has KVM prepare it before it hands over the changed
RIP, and KVM then steps nothing.) The pCPU runs it in root mode with interrupts off and then has its own
registers back. Its memory stays as it was, but for a word of the
stack that only the entry code uses.
"""

import contextlib

import gdb

from . import control, pcpus, target
from .errors import Problem

REFUSED = 0x41
"""RFLAGS.CF and ZF: VMfailInvalid, VMfailValid."""
LENGTH = 3
"""Bytes of each of the instructions."""
NO_VMCS = 0xFFFF_FFFF_FFFF_FFFF
_SAVED = ("rip", "rax", "rcx", "eflags")


class Borrowed:
    """A pCPU in root mode whose registers are put back at the end."""

    def __init__(self):
        self.doors = {}
        for name in ("vmread", "vmptrld", "vmptrst"):
            self.doors[name] = target.symbol(f"debugger_{name}")
            if self.doors[name] is None:
                raise Problem("this hypervisor has no doorways for a debugger: it is an older one")
        self.scratch = target.symbol("early_stack")

    def step(self, instruction, rcx):
        """Executes one; returns RAX, or None when the CPU refuses it."""
        _set("rcx", rcx)
        _set("rip", self.doors[instruction])
        gdb.execute("continue", to_string=True)
        if gdb.selected_thread() is None:
            raise Problem("the machine has ended")
        frame = gdb.newest_frame()
        if int(frame.pc()) != self.doors[instruction] + LENGTH:
            raise Problem(f"the pCPU stopped elsewhere, at {int(frame.pc()):#x}")
        if int(frame.read_register("eflags")) & REFUSED:
            return None
        return int(frame.read_register("rax")) & (1 << 64) - 1

    def vmread(self, encoding):
        """A field of the current VMCS, or None when it has no such field."""
        return self.step("vmread", encoding)

    def vmptrld(self, operand):
        """Makes the VMCS current whose address lies at `operand`."""
        if self.step("vmptrld", operand) is None:
            raise Problem("VMPTRLD was refused")

    def current(self):
        """The address of the current VMCS, and where it is in memory now."""
        if self.step("vmptrst", self.scratch) is None:
            raise Problem("VMPTRST was refused")
        with target.reading():
            return int.from_bytes(target.read(self.scratch, 8), "little")


@contextlib.contextmanager
def borrowed(thread):
    """Selects a pCPU's thread and gives its VMX instructions."""
    before, frame = gdb.selected_thread(), gdb.selected_frame()
    thread.switch()
    gdb.newest_frame().select()
    newest = gdb.newest_frame()
    saved = {name: int(newest.read_register(name)) for name in _SAVED}
    cpu = Borrowed()
    stops = [gdb.Breakpoint(f"*{door + LENGTH:#x}", internal=True) for door in cpu.doors.values()]
    try:
        _set("eflags", saved["eflags"] & ~pcpus.RFLAGS_IF)
        with control.alone():
            yield cpu
    finally:
        for stop in stops:
            stop.delete()
        for name, value in saved.items():
            _set(name, value)
        before.switch()
        if frame.is_valid():
            frame.select()


def _set(register, value):
    with target.language("c"):
        gdb.parse_and_eval(f"${register} = {value & (1 << 64) - 1:#x}")
