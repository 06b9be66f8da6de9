"""Figures as functions: tidy table in, matplotlib figure out; the only importers of matplotlib."""
