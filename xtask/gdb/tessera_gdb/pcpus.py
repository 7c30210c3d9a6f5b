"""`tessera pcpus`: what each physical CPU does. Also: which gdb thread is which pCPU."""

from dataclasses import dataclass

import gdb

from . import control, domains, rust, sources, target
from .command import Command, Inspector, number, table
from .errors import Problem

HLT, CLI = 0xF4, 0xFA
NO_DOMAIN = 0xFFFF_FFFF
RFLAGS_IF = 1 << 9


@dataclass
class Thread:
    """One CPU as the stub shows it."""

    thread: gdb.InferiorThread
    rip: int
    cr3: int
    """None when the stub does not tell."""
    gs_base: int

    @property
    def index(self):
        """The machine's number of the CPU, from 0."""
        return max(self.thread.ptid[1], 1) - 1


def threads():
    """Every CPU with its registers; the selected one stays selected."""
    selected = gdb.selected_thread()
    frame = gdb.selected_frame()
    found = []
    try:
        for thread in sorted(gdb.selected_inferior().threads(), key=lambda t: t.ptid[1]):
            thread.switch()
            newest = gdb.newest_frame()
            mask = (1 << 64) - 1
            value = [_register(newest, name) for name in ("rip", "cr3", "gs_base")]
            found.append(Thread(thread, *[v if v is None else v & mask for v in value]))
    finally:
        selected.switch()
        if frame.is_valid():
            frame.select()
    return found


def _register(frame, name):
    try:
        return int(frame.read_register(name))
    except (ValueError, gdb.error):
        return None


def in_text(address):
    """True for an address in the hypervisor's code."""
    start, end = target.symbol("__image_start"), target.symbol("__text_end")
    return start is not None and end is not None and start <= address < end


def mode(thread):
    """`root`, `halted` (root mode, waiting in HLT), `guest` or `boot`."""
    root_table = rust.number(rust.static("tessera::memory::paging::ROOT"))
    if root_table == 0:
        return "boot"
    if thread.cr3 not in (None, root_table) or not in_text(thread.rip):
        return "guest"
    return "halted" if target.read(thread.rip - 1, 1)[0] == HLT else "root"


def all_pcpus():
    """The `PerCpu` of every pCPU that is up."""
    slots = rust.array(rust.static("vmm_core::percpu::CPUS"))
    pointers = [rust.once(slot) for slot in slots]
    return [rust.follow(pointer) for pointer in pointers if pointer is not None]


def thread_of(pcpu, known):
    """The thread of a pCPU: by GS in root mode, else by its APIC id, which QEMU counts from 0."""
    address = rust.number(pcpu, "self_address")
    for thread in known:
        if thread.gs_base == address:
            return thread
    apic_id = rust.number(pcpu, "apic_id")
    return next((thread for thread in known if thread.index == apic_id), None)


def find(pcpu_id):
    """A pCPU and its thread."""
    for pcpu in all_pcpus():
        if rust.number(pcpu, "id") == pcpu_id:
            thread = thread_of(pcpu, threads())
            if thread is None:
                raise Problem(f"pCPU {pcpu_id} has no thread here")
            return pcpu, thread
    raise Problem(f"there is no pCPU {pcpu_id} (see tessera pcpus)")


def in_root_mode(pcpu_id):
    """The thread of a pCPU, which must be able to step in root mode."""
    _, thread = find(pcpu_id)
    where = mode(thread)
    if where != "root":
        what = "waits in HLT" if where == "halted" else "runs a guest"
        raise Problem(f"pCPU {pcpu_id} {what}: `tessera root {pcpu_id}` brings it into root mode")
    return thread


class Pcpus(Inspector):
    """Shows the physical CPUs: thread, mode, whose vCPU they run.

Mode is `root` in the hypervisor, `halted` in its HLT, `guest` in a guest, `boot` before it is a
pCPU. A pCPU in a guest shows the guest's registers to gdb.
`tessera root PCPU` brings one into root mode."""

    name = "pcpus"

    def show(self):
        known = threads()
        rows, seen = [], set()
        for pcpu in all_pcpus():
            thread = thread_of(pcpu, known)
            if thread is not None:
                seen.add(thread.index)
            domain = rust.number(pcpu, "running_domain")
            loaded = rust.option(rust.get(pcpu, "loaded"))
            rows.append([
                rust.number(pcpu, "id"),
                f"{rust.number(pcpu, 'apic_id'):#x}",
                thread.thread.num if thread else "-",
                mode(thread) if thread else "-",
                "-" if domain == NO_DOMAIN else f"d{domain}",
                domains.vcpu_ref_name(loaded) if loaded is not None else "-",
                f"{thread.rip:#x}" if thread else "-",
            ])
        for thread in known:
            if thread.index not in seen:
                rows.append(["-", "-", thread.thread.num, "boot", "-", "-", f"{thread.rip:#x}"])
        table(["pcpu", "apic", "thread", "mode", "domain", "loaded", "rip"], rows)


def _behind_hlt(thread):
    """Where an idle pCPU goes on: behind the CLI after its HLT (vmx/src/cpu/idle.rs)."""
    if target.read(thread.rip, 1)[0] != CLI:
        raise Problem("the pCPU has stopped for good: no interrupt wakes it")
    return thread.rip + 1


class Root(Command):
    """Lets a pCPU run until it is in root mode, in the hypervisor's own code.

Usage: tessera root PCPU
Out of a guest, or out of HLT, by the interrupt with which pCPUs wake each other. It stops where VM
exits land (vmx/src/entry.rs), or behind the HLT. The other pCPUs stay where they are."""

    name, usage, least, most = "root", "PCPU", 1, 1

    def run(self, pcpu):
        pcpu_id = number(pcpu, "the number of a pCPU")
        with target.reading():
            one, thread = find(pcpu_id)
            where, apic_id = mode(thread), rust.number(one, "apic_id")
            if where == "root":
                gdb.write(f"pCPU {pcpu_id} is in root mode\n")
                return
            stop = _behind_hlt(thread) if where == "halted" else target.function("entry::vm_exit")
            control.send_interrupt(apic_id, sources.wake_vector())
        thread.thread.switch()
        control.run_to(stop, thread.thread)
        gdb.execute("frame")


def register():
    """Defines the commands."""
    Pcpus()
    Root()
