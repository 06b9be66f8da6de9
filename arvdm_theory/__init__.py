"""Exact error analysis of auto-regressive video diffusion on videos whose law is known."""
