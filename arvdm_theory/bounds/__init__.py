"""Bounds: path KL, accumulation, impossibility, memory of limited information."""
