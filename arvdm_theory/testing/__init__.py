"""Hypothesis strategies for one's own property tests; needs the ``hypothesis`` package."""
