"""Quality against steps: cells of a table, measured once, scored, reported."""

from ddim.jobs.evaluate.cells import Cell, Contender, calls_left, make, real, rivals_of, split, stamp_of, table_of
from ddim.jobs.evaluate.folder import refuse_no_report, take_up
from ddim.jobs.evaluate.measured import Made
from ddim.jobs.evaluate.report import heads, table_cells, write_report
from ddim.jobs.evaluate.scoring import Reference, Row, above, answer, compared
from ddim.jobs.evaluate.stamps import stamp_of_run
from ddim.jobs.evaluate.whole import (
    Measured,
    RealSets,
    cell_named,
    classes_known,
    judged,
    measure_cells,
    measure_images,
    n_allowed,
    share_cells,
)

__all__ = [
    "Cell",
    "Contender",
    "Made",
    "Measured",
    "RealSets",
    "Reference",
    "Row",
    "above",
    "answer",
    "calls_left",
    "cell_named",
    "classes_known",
    "compared",
    "heads",
    "judged",
    "make",
    "measure_cells",
    "measure_images",
    "n_allowed",
    "real",
    "refuse_no_report",
    "rivals_of",
    "share_cells",
    "split",
    "stamp_of",
    "stamp_of_run",
    "table_cells",
    "table_of",
    "take_up",
    "write_report",
]
