"""`tessera runq`: who waits for which pCPU."""

from . import domains, pcpus, rust
from .command import Inspector, table


class RunQueues(Inspector):
    """Shows each pCPU's run queue: its scheduler virtual time, who is ready at which effective
virtual time, the first in line first, and who sleeps until which TSC."""

    name = "runq"

    def show(self):
        rows = []
        for pcpu in pcpus.all_pcpus():
            queue = rust.get(pcpu, "run_queue")
            ready = rust.get(queue, "ready")
            waiting = sorted(
                (rust.number(key, "__0"), rust.number(key, "__1"), rust.get(one, "vcpu"))
                for key, one in entries(rust.get(ready, "waiting"))
            )
            sleepers = sorted(
                (int(rust.peel(deadline)), domains.vcpu_ref_name(one))
                for deadline, one in entries(rust.get(queue, "sleepers"))
            )
            rows.append([
                rust.number(pcpu, "id"),
                "no" if rust.option(rust.get(ready, "turn")) is None else "yes",
                "yes" if rust.number(pcpu, "need_resched") else "no",
                f"{rust.number(ready, 'svt'):#x}",
                " ".join(f"{domains.vcpu_ref_name(one)}@{evt:#x}" for evt, _, one in waiting) or "-",
                " ".join(f"{one}@{deadline:#x}" for deadline, one in sleepers) or "-",
            ])
        table(["pcpu", "runs", "resched", "svt", "ready", "sleepers"], rows)


def entries(heap):
    """The keys and members of a heap, in no order."""
    return [(entry["__0"], entry["__1"]) for entry in rust.vec(rust.get(heap, "entries"))]


def register():
    """Defines the command."""
    RunQueues()
