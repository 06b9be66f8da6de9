"""What is wrong with a plan file, a timestep matrix or a scheduler config: all of it, where, and the fix."""

from arvdm_theory.plan.lint.finding import Finding
from arvdm_theory.plan.lint.matrix import lint_matrix, read_matrix
from arvdm_theory.plan.lint.plan_file import lint_plan
from arvdm_theory.plan.lint.scheduler import lint_scheduler

__all__ = ["Finding", "lint_matrix", "lint_plan", "lint_scheduler", "read_matrix"]
