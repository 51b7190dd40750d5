"""Whatever takes long and must survive: resumable, shared by processes, whole at every moment."""

from ddim.jobs.evaluate import (
    Cell,
    Made,
    Reference,
    Row,
    Subject,
    answer,
    compared,
    heads,
    make,
    real,
    split,
    stamp_of,
    table_cells,
    table_of,
    write_report,
)
from ddim.jobs.export import PRECISIONS, export_onnx
from ddim.jobs.generation import complete, generate, verify, write_npz
from ddim.jobs.job import Share, open_job, share_of
from ddim.jobs.settled import BatchSize, Settled, When, settle
from ddim.jobs.train import (
    Cadence,
    Plan,
    Precision,
    Recipe,
    ancestor_of,
    refuse_existing,
    resolve_precision,
    start,
    train_run,
)
from ddim.jobs.tuning import Tuned, tune

run = train_run  # cli/commands/train.py still says so

__all__ = [
    "PRECISIONS",
    "BatchSize",
    "Cadence",
    "Cell",
    "Made",
    "Plan",
    "Precision",
    "Recipe",
    "Reference",
    "Row",
    "Settled",
    "Share",
    "Subject",
    "Tuned",
    "When",
    "ancestor_of",
    "answer",
    "compared",
    "complete",
    "export_onnx",
    "generate",
    "heads",
    "make",
    "open_job",
    "real",
    "refuse_existing",
    "resolve_precision",
    "run",
    "settle",
    "share_of",
    "split",
    "stamp_of",
    "start",
    "table_cells",
    "table_of",
    "train_run",
    "tune",
    "verify",
    "write_npz",
    "write_report",
]
