"""The one place that writes to disk: a file or a folder appears whole, under its own name, or not at all.

Everything is written under a hidden temporary name beside its place, synced, and renamed; what fails leaves nothing.
A temporary name holds the machine, the process and a random part: no two writers share one, and `sweep` knows by it
what a killed writer left. What is new is never written over anything, whoever came first.
"""

from ddim.files.content import (
    VERSION,
    digest,
    read_json,
    read_tensors,
    sha256,
    weights_hash,
    write_json,
    write_tensors,
    write_text,
)
from ddim.files.holds import Crew, Hold, alone
from ddim.files.places import free_file, free_folder, reach
from ddim.files.temporary import HOST, STALE, is_temporary, sweep
from ddim.files.whole import whole_file, whole_folder

__all__ = [
    "HOST",
    "STALE",
    "VERSION",
    "Crew",
    "Hold",
    "alone",
    "digest",
    "free_file",
    "free_folder",
    "is_temporary",
    "reach",
    "read_json",
    "read_tensors",
    "sha256",
    "sweep",
    "weights_hash",
    "whole_file",
    "whole_folder",
    "write_json",
    "write_tensors",
    "write_text",
]
