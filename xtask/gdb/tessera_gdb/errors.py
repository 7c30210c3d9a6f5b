"""What a command tells instead of a traceback."""


class Problem(Exception):
    """Why a command cannot show what was asked for: one line for the user."""
