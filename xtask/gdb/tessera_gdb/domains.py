"""`tessera domains` and `tessera vcpus`, and the way from a name to a domain or vCPU."""

import re

import gdb

from . import rust, sources
from .command import Inspector, table
from .errors import Problem

RUNNING = 0xFFFF_FFFF


def all_domains():
    """Every domain."""
    return [rust.arc(one) for one in rust.vec(rust.static("vmm_core::domain::list::DOMAINS"))]


def identity(domain):
    """A domain's id."""
    return rust.number(domain, "id")


def name(domain):
    """A domain's name."""
    return rust.string(rust.get(domain, "name"))


def find(text):
    """The domain with this id (`1` or `d1`) or name."""
    for domain in all_domains():
        if text in (str(identity(domain)), f"d{identity(domain)}", name(domain)):
            return domain
    raise Problem(f"there is no domain {text} (see tessera domains)")


def vcpus_of(domain):
    """The vCPUs of a domain."""
    return rust.boxed_slice(rust.get(domain, "vcpus"))


VCPU = re.compile(r"d(\d+)v(\d+)")


def is_vcpu(text):
    """True for a vCPU's name, whether or not there is one."""
    return VCPU.fullmatch(text) is not None


def find_vcpu(text):
    """Domain and vCPU by Xen's `d1v0`."""
    match = VCPU.fullmatch(text)
    if not match:
        raise Problem(f"{text}: a vCPU is written as d1v0")
    domain = find(match[1])
    for vcpu in vcpus_of(domain):
        if rust.number(vcpu, "id") == int(match[2]):
            return domain, vcpu
    raise Problem(f"domain {match[1]} has no vCPU {match[2]}")


def vcpu_name(domain, vcpu):
    """Xen's name of a vCPU."""
    return f"d{identity(domain)}v{rust.number(vcpu, 'id')}"


def vcpu_of_ref(reference):
    """Domain and vCPU that a `VcpuRef` refers to."""
    domain = rust.arc(rust.get(reference, "domain"))
    return domain, vcpus_of(domain)[rust.number(reference, "index")]


def vcpu_ref_name(reference):
    """The name of what a `VcpuRef` refers to."""
    return vcpu_name(*vcpu_of_ref(reference))


def home(vcpu):
    """The pCPU that a vCPU runs on."""
    return rust.number(vcpu, "standing", "home")


def run_state(vcpu):
    """The name of a vCPU's state."""
    names = {f.enumval: f.name for f in gdb.lookup_type("vmm_core::vcpu::RunState").fields()}
    raw = rust.number(vcpu, "standing", "state")
    return names.get(raw, f"{raw}?").split("::")[-1]


class Domains(Inspector):
    """Shows all domains: state, vCPUs, memory in 4 KiB pages, open event channels, EPT root."""

    name = "domains"

    def show(self):
        rows = []
        for domain in all_domains():
            p2m, reason = rust.get(domain, "p2m"), rust.number(domain, "life", "reason")
            rows.append([
                identity(domain),
                name(domain),
                "running" if reason == RUNNING else f"ending({reason})",
                f"{rust.number(domain, 'online')}/{len(vcpus_of(domain))}",
                f"{rust.number(p2m, 'ram')}/{rust.number(domain, 'max_pages')}",
                rust.number(domain, "evtchn", "open"),
                f"{rust.number(p2m, 'ept', 'root') << 12:#x}",
            ])
        table(["id", "name", "state", "vcpus", "pages", "ports", "ept"], rows)


class Vcpus(Inspector):
    """Shows vCPUs: state, home pCPU, signals that wait, and the VMCS.

Usage: tessera vcpus [DOMAIN]
`vmcs` is the host-physical address of the region; `active` tells on which pCPU's VmxOn (counted
from 1) it is active, `launched` whether it has been entered since its last VMCLEAR."""

    name, usage, most = "vcpus", "[DOMAIN]", 1

    def show(self, domain=None):
        rows = []
        for one in all_domains() if domain is None else [find(domain)]:
            for vcpu in vcpus_of(one):
                vmcs = rust.get(vcpu, "context", "vmcs")
                active = rust.number(vmcs, "active_on")
                rows.append([
                    vcpu_name(one, vcpu),
                    name(one),
                    run_state(vcpu).lower(),
                    home(vcpu),
                    sources.bits(rust.number(vcpu, "standing", "signals"), sources.signals()),
                    f"{rust.number(vmcs, 'region'):#x}",
                    active or "-",
                    "yes" if int(rust.peel(rust.get(vmcs, "launched"))) else "no",
                ])
        head = ["vcpu", "domain", "state", "home", "signals", "vmcs", "active", "launched"]
        table(head, rows)


def register():
    """Defines the commands."""
    Domains()
    Vcpus()
