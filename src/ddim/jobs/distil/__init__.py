"""Students as a job: what decides one, what it minimises, its stages, its folder."""

from ddim.jobs.distil.images import own_images
from ddim.jobs.distil.losses import Consistency, Progressive
from ddim.jobs.distil.plan import StudentPlan
from ddim.jobs.distil.recipe import Stage, StudentRecipe
from ddim.jobs.distil.run import Learned, distil_run, refuse_student, stored_student
from ddim.jobs.distil.start import good_start

__all__ = [
    "Consistency",
    "Learned",
    "Progressive",
    "Stage",
    "StudentPlan",
    "StudentRecipe",
    "distil_run",
    "good_start",
    "own_images",
    "refuse_student",
    "stored_student",
]
