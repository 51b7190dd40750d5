"""One module a command: the options it takes, and what it does with them."""
