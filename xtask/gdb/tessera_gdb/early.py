"""`tessera code`: instructions as the CPU will execute them, 16-bit and 32-bit ones too.

gdb takes all code of an x86-64 machine for 64-bit code. The hypervisor's first instructions are
32-bit code (boot/src/entry.rs), and a started CPU begins in 16-bit code (boot/src/smp.rs), in a
copy of the start-up page that no symbol names.
"""

import re
import subprocess
import tempfile

import gdb

from . import target
from .command import Command, number
from .errors import Problem

MACHINES = {16: "i8086", 32: "i386", 64: "i386:x86-64"}
LONGEST = 15


class Place:
    """An address with its mode and the name of the code there."""

    def __init__(self, address, bits, name):
        self.address, self.bits, self.name = address, bits, name


def place(rip, cs):
    """Where the CPU is, by the names of the entry code and the start-up page."""
    entry, long_mode = target.symbol("multiboot2_entry"), target.symbol("early_long_mode")
    if None not in (entry, long_mode) and entry <= rip < long_mode:
        return Place(rip, 32, None)
    begin, end = target.symbol("start_up_begin"), target.symbol("start_up_end")
    to_32, to_64 = target.symbol("start_up_32"), target.symbol("start_up_64")
    if None in (begin, end, to_32, to_64):
        return Place(rip, 64, None)
    # In real mode CS is the page's; later RIP is the address itself.
    for page, offset in ((cs << 4, rip), (rip & ~0xFFF, rip & 0xFFF)):
        if 0 < page < 1 << 20 and offset < end - begin and _holds_start_up(page, begin, to_32):
            at = begin + offset
            bits = 16 if at < to_32 else 32 if at < to_64 else 64
            base, name = max((s, n) for s, n in
                             ((begin, "start_up_begin"), (to_32, "start_up_32"),
                              (to_64, "start_up_64")) if s <= at)
            return Place(page + offset, bits, name if at == base else f"{name}+{at - base}")
    return Place(rip, 64, None)


def _holds_start_up(page, begin, end):
    try:
        code = target.read(begin, end - begin)
        return target.read_physical(page, end - begin) == code
    except Problem:
        return False


def disassemble(code, address, bits):
    """Instructions of some bytes: pairs of address and text. By objdump, which knows all modes."""
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(code)
        file.flush()
        line = ["objdump", "-D", "-b", "binary", "-m", MACHINES[bits], "-M", "intel",
                f"--adjust-vma={address:#x}", file.name]
        try:
            done = subprocess.run(line, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Problem(f"objdump (package binutils) is needed: {error}") from None
    row = re.compile(r"^ *([0-9a-f]+):\t[0-9a-f ]+\t(.+?) *$")
    return [(int(m[1], 16), m[2]) for m in map(row.match, done.stdout.splitlines()) if m]


class Code(Command):
    """Shows the next instructions in the mode the CPU executes them in.

Usage: tessera code [COUNT]
Use it in the entry code and the start-up code of the other CPUs, which begin in 32-bit and in
16-bit mode; gdb's own x/i takes those for 64-bit code."""

    name, usage, most = "code", "[COUNT]", 1

    def run(self, count="5"):
        count = number(count, "a number of instructions")
        frame = gdb.newest_frame()
        rip, cs = (int(frame.read_register(name)) for name in ("rip", "cs"))
        with target.reading():
            where = place(rip & (1 << 64) - 1, cs & 0xFFFF)
            length = min(count * LONGEST, 4096 - where.address % 4096)
            read = target.read_physical if where.address < 1 << 31 else target.read
            code = read(where.address, length)
        name = f" <{where.name}>" if where.name else ""
        gdb.write(f"{where.bits}-bit code{name}:\n")
        for address, text in disassemble(code, where.address, where.bits)[:count]:
            mark = "=>" if address == where.address else "  "
            near = gdb.execute(f"info symbol {address:#x}", to_string=True).split(" in section")[0]
            near = "" if "No symbol" in near else f" <{near.replace(' + ', '+')}>"
            gdb.write(f"{mark} {address:#x}{near}:\t{text}\n")


def register():
    """Defines the command."""
    Code()
