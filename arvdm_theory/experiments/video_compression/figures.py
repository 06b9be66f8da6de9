"""The figures: what a compressed memory retrieves, and what that costs."""

from __future__ import annotations

from arvdm_theory.experiments.video.pareto_figure import price
from arvdm_theory.report.style import Figures

__all__ = ["FIGURES"]

FIGURES: Figures = {"video-price": ("video-compression", price)}
"""The figure's name with the table it is drawn from."""
