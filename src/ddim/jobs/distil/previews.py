"""Pictures of a student as it goes: the same latents by its teacher, in many steps, and by itself."""

from __future__ import annotations

import json

from PIL import Image
from torch import Tensor

from ddim.checkpoints import Checkpoint
from ddim.jobs.distil.plan import StudentPlan
from ddim.jobs.distil.start import fewer
from ddim.model import Labels, Model
from ddim.pixels import enlargement, grid, save_png, to_uint8

TEACHER_STEPS, ROWS = 50, 2


class Previews:
    """previews/stage-I-step-N.png: rows of the teacher's pictures, under each the student's from the same latents."""

    def __init__(self, plan: StudentPlan, index: int) -> None:
        self.plan, self.index = plan, index
        self.names = plan.teacher.checkpoint.labels or () if plan.labelled else ()
        self.columns = max(2, min(len(self.names) or 8, 16))
        self.label: Labels = "cycle" if plan.labelled else None
        self._known: Tensor | None = None

    def _teacher(self) -> Tensor:
        """Made once."""
        if self._known is None:
            own, guidance = self.plan.teacher, self.plan.recipe.guidance
            taught = own.checkpoint.student is not None
            steps = None if taught else fewer(own, TEACHER_STEPS)
            sampler = own.sampler(steps=steps, label=self.label, guidance=guidance, precision="auto")
            self._known = sampler.sample(range(ROWS * self.columns))
        return self._known

    def draw(self, student: Checkpoint) -> Image.Image:
        """The picture of this student, saved."""
        model = Model(student).to(self.plan.teacher.device)
        sampler = model.sampler(label=self.label, precision="auto")
        made, n = sampler.sample(range(ROWS * self.columns)), self.columns
        pixels = []
        for row in range(ROWS):
            part = slice(row * n, (row + 1) * n)
            pixels += [*to_uint8(self._teacher()[part]), *to_uint8(made[part])]
        words = f"{sampler.calls} call{'s' * (sampler.calls > 1)}"
        picture = grid(
            pixels, n, scale=enlargement(made.shape[2], n), row_labels=("teacher", words) * ROWS,
            column_labels=self.names if len(self.names) == n else None,
        )  # fmt: skip
        step = student.meta["provenance"]["steps"]
        path = self.plan.run / "previews" / f"stage-{self.index}-step-{step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(path, picture, {"ddim": json.dumps({"stage": self.index, "step": step, **sampler.recipe})})
        return picture
