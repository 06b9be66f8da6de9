"""One experiment: what is claimed of auto-regressive video diffusion, and what is so."""
