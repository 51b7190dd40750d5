"""argv and the terminal: commands, options, bars, tables, words to people. `ddim COMMAND ...` begins in `argv`."""

from ddim.cli.argv import main

__all__ = ["main"]
