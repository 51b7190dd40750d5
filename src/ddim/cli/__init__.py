"""argv and the terminal: commands, options, bars, tables, words to people. `ddim COMMAND ...` begins in `main`."""

from ddim.cli.main import main

__all__ = ["main"]
