"""Quality against steps: cells of a table, measured once, scored, reported."""

from ddim.jobs.evaluate.cells import Cell, make, real, split, stamp_of, table_of
from ddim.jobs.evaluate.measured import Made
from ddim.jobs.evaluate.report import heads, table_cells, write_report
from ddim.jobs.evaluate.scoring import Reference, Row, answer, compared

__all__ = [
    "Cell",
    "Made",
    "Reference",
    "Row",
    "answer",
    "compared",
    "heads",
    "make",
    "real",
    "split",
    "stamp_of",
    "table_cells",
    "table_of",
    "write_report",
]
