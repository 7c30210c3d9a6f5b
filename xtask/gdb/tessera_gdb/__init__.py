"""One file for each thing that a command shows; `register` makes them all known to gdb."""

from . import domains, early, ept, evtchn, exits, grants, log, pcpus, printers, runq, vmcs
from .command import register_prefix


def register():
    """Defines the commands and the pretty-printers."""
    register_prefix()
    for module in (early, pcpus, domains, runq, vmcs, exits, ept, evtchn, grants, log):
        module.register()
    printers.register()
