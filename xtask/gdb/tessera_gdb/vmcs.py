"""`tessera vmcs`."""


def register():
    """Defines the commands."""
