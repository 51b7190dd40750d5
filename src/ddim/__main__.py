"""`python -m ddim` is `ddim`; torchrun and accelerate launch want a module."""

from ddim.cli import main

if __name__ == "__main__":
    main()
