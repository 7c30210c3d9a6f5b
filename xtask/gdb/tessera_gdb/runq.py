"""`tessera runq`: who waits for which pCPU."""

from . import domains, pcpus, rust
from .command import Inspector, table


class RunQueues(Inspector):
    """Shows each pCPU's run queue: who is ready, in order, and who sleeps until which TSC."""

    name = "runq"

    def show(self):
        rows = []
        for pcpu in pcpus.all_pcpus():
            queue = rust.get(pcpu, "run_queue")
            ready = [domains.vcpu_ref_name(one) for one in rust.deque(rust.get(queue, "ready"))]
            sleepers = [
                f"{domains.vcpu_ref_name(rust.get(one, 'vcpu'))}@{rust.number(one, 'deadline'):#x}"
                for one in reversed(rust.vec(rust.get(queue, "sleepers")))
            ]
            rows.append([
                rust.number(pcpu, "id"),
                "yes" if rust.number(pcpu, "idle") else "no",
                "yes" if rust.number(pcpu, "need_resched") else "no",
                " ".join(ready) or "-",
                " ".join(sleepers) or "-",
            ])
        table(["pcpu", "idle", "resched", "ready", "sleepers"], rows)


def register():
    """Defines the command."""
    RunQueues()
