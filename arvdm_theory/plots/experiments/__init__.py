"""Figures of the experiments with trained networks, one module each, drawn from their tables alone."""
