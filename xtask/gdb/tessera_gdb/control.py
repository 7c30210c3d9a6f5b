"""Lets single CPUs of the stopped machine run."""

import contextlib

import gdb

from . import target
from .errors import Problem


@contextlib.contextmanager
def alone():
    """Lets only the selected CPU run, if the stub can do that, and gdb tell nothing of stops."""
    wanted = {
        "scheduler-locking": "on",
        "suppress-cli-notifications": "on",
        "breakpoint always-inserted": "on",
    }
    before = {}
    for name, value in wanted.items():
        try:
            before[name] = gdb.parameter(name)
        except RuntimeError:
            # An older gdb: it will tell of every step.
            continue
        gdb.execute(f"set {name} {value}", to_string=True)
    try:
        yield
    finally:
        for name, value in before.items():
            value = {True: "on", False: "off"}.get(value, value)
            gdb.execute(f"set {name} {value}", to_string=True)


def run_to(address, thread):
    """Lets one CPU alone run to an address of the hypervisor."""
    breakpoint_ = gdb.Breakpoint(
        f"*{address:#x}", type=gdb.BP_HARDWARE_BREAKPOINT, internal=True
    )
    breakpoint_.thread = thread.num
    try:
        with alone():
            gdb.execute("continue", to_string=True)
    finally:
        if breakpoint_.is_valid():
            breakpoint_.delete()
    if int(gdb.newest_frame().pc()) != address:
        raise Problem(f"stopped at {int(gdb.newest_frame().pc()):#x} before that")


def send_interrupt(apic_id, vector):
    """Sends an interrupt as a device would, by a write to the local APICs' message window.

    SDM 3A, "Message Address Register Format". Where the stub takes no physical addresses nothing is
    sent; the CPU then stops at its next exit."""
    target.write_message(0xFEE0_0000 | (apic_id & 0xFF) << 12, vector)
