"""The base of all commands: `tessera NAME ARGUMENTS`, errors as one line."""

import gdb

from . import target
from .errors import Problem


class _Prefix(gdb.Command):
    """Shows what Tessera knows: domains, vCPUs, memory, events, the log.

Every command works on a stopped machine and changes nothing, but for `tessera root`, which lets
the machine run a little, and `tessera vmcs`, which borrows the pCPU for some instructions.

DOMAIN is a domain's id or name, VCPU is Xen's d1v0 (domain 1, vCPU 0)."""

    def __init__(self):
        super().__init__("tessera", gdb.COMMAND_DATA, prefix=True)


def register_prefix():
    """Defines the command that all others belong to."""
    _Prefix()


class Command(gdb.Command):
    """A command; the subclass has `name`, `run(arguments)` and its help as docstring."""

    name = ""
    """The word after `tessera`."""
    usage = ""
    """Its arguments, for the message about wrong ones."""
    least, most = 0, 0
    """How many arguments it takes."""

    def __init__(self):
        super().__init__("tessera " + self.name, gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        """Called by gdb."""
        try:
            words = gdb.string_to_argv(argument)
            if not self.least <= len(words) <= self.most:
                raise Problem(f"usage: tessera {self.name} {self.usage}".rstrip())
            self.run(*words)
        except Problem as problem:
            raise gdb.GdbError(f"tessera {self.name}: {problem}") from None
        except gdb.MemoryError as error:
            raise gdb.GdbError(f"tessera {self.name}: {error}") from None
        except gdb.error as error:
            raise gdb.GdbError(f"tessera {self.name}: gdb says: {error}") from None

    def run(self, *words):
        """Does the work."""
        raise NotImplementedError


class Inspector(Command):
    """A command that reads the hypervisor's memory and nothing else."""

    def run(self, *words):
        with target.reading():
            self.show(*words)

    def show(self, *words):
        """Does the work, with the hypervisor's memory readable."""
        raise NotImplementedError


def number(text, what):
    """A number as C writes it, or a problem that says what was expected."""
    try:
        value = int(text, 0)
    except ValueError:
        raise Problem(f"{text}: not {what}") from None
    if value < 0:
        raise Problem(f"{text}: not {what}")
    return value


def table(head, rows):
    """Prints rows of texts under a head, each column as wide as it must be."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        gdb.write("  ".join(cells).rstrip() + "\n")
