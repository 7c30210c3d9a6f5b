"""`tessera vmcs`: a vCPU's VMCS by the names of its fields."""

import gdb

from . import domains, pcpus, rust, sources, target, vmx
from .command import Command
from .errors import Problem


class Vmcs(Command):
    """Shows a vCPU's VMCS by the names of its fields.

Usage: tessera vmcs [VCPU] [WORD...]
Without VCPU: of the vCPU whose state the selected pCPU has. With words, only the fields whose names
have one of them: `tessera vmcs d1v0 RIP EXIT`. Fields that the CPU does not have are left out.

gdb cannot execute VMREAD, so the vCPU's pCPU does it for gdb, an instruction at a time, and gets its
registers back; it must be in root mode (`tessera root PCPU` brings it there)."""

    name, usage, most = "vmcs", "[VCPU] [WORD...]", 99

    def run(self, *words):
        named = bool(words) and domains.is_vcpu(words[0])
        with target.reading():
            vcpu = domains.find_vcpu(words[0]) if named else _loaded_here()
            place = _place(*vcpu)
        wanted = _fields(words[1:] if named else words)
        gdb.write(f"{place.name}, VMCS {place.region:#x}, pCPU {place.home}\n")
        with vmx.borrowed(place.thread.thread) as cpu:
            values = _read(cpu, place, wanted)
        width = max(len(name) for name, _, _ in values) if values else 0
        for name, bits, value in values:
            gdb.write(f"{name:{width}}  {value:#0{bits // 4 + 2}x}{_meaning(name, value)}\n")


class _Place:
    def __init__(self, name, region, operand, home, thread):
        self.name, self.region, self.operand = name, region, operand
        self.home, self.thread = home, thread


def _loaded_here():
    """The vCPU whose registers the selected pCPU has."""
    selected = gdb.selected_thread().num
    known = pcpus.threads()
    for pcpu in pcpus.all_pcpus():
        thread = pcpus.thread_of(pcpu, known)
        if thread is not None and thread.thread.num == selected:
            loaded = rust.option(rust.get(pcpu, "loaded"))
            if loaded is not None:
                return domains.vcpu_of_ref(loaded)
    raise Problem("the selected pCPU has run no vCPU: name one (see tessera vcpus)")


def _place(domain, vcpu):
    """Where a vCPU's VMCS is active."""
    name, home = domains.vcpu_name(domain, vcpu), domains.home(vcpu)
    vmcs = rust.get(vcpu, "context", "vmcs")
    if not rust.number(vmcs, "active_on"):
        raise Problem(f"{name} has no active VMCS: it has not run, or is offline")
    thread = pcpus.in_root_mode(home)
    region = rust.peel(rust.get(vmcs, "region"))
    operand = target.virtual(region)
    return _Place(name, int(region), operand, home, thread)


def _read(cpu, place, fields):
    """Name, bits and value of the fields that the VMCS has."""
    before = cpu.current()
    if before == place.region:
        return _read_current(cpu, fields)
    cpu.vmptrld(place.operand)
    try:
        return _read_current(cpu, fields)
    finally:
        if before != vmx.NO_VMCS:
            # VMPTRST has left its address in the scratch word.
            cpu.vmptrld(cpu.scratch)


def _read_current(cpu, fields):
    values = ((name, bits, cpu.vmread(encoding)) for encoding, name, bits in fields)
    return [row for row in values if row[2] is not None]


def _fields(words):
    fields = sources.vmcs_fields()
    chosen = [f for f in fields if not words or any(word.upper() in f[1] for word in words)]
    if not chosen:
        raise Problem(f"no field's name has {' or '.join(words)}")
    return chosen


def _meaning(name, value):
    if name != "EXIT_REASON":
        return ""
    return f"  {sources.exit_reasons().get(value & 0xFFFF, '?')}"


def register():
    """Defines the command."""
    Vmcs()
