"""`Refused`: what was asked for cannot be done. It says the cause and the remedy, in one line.

The command line turns it, and `OSError`, into that line and exit code 2, and nothing else: a bug keeps its traceback.
"""

from __future__ import annotations


class Refused(ValueError):  # noqa: N818  it is no error of the program's
    """A request that cannot be met.

    Messages name a parameter as a caller in Python writes it, in backticks (`batch_size`); the command line spells
    such a name as its flag.
    """
