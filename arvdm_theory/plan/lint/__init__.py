"""What is wrong with a plan file or a timestep matrix: all of it, where, and the fix."""

from arvdm_theory.plan.lint.finding import Finding
from arvdm_theory.plan.lint.matrix import lint_matrix, read_matrix
from arvdm_theory.plan.lint.plan_file import lint_plan

__all__ = ["Finding", "lint_matrix", "lint_plan", "read_matrix"]
