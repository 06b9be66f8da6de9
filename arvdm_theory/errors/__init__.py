"""The exact error decomposition of auto-regressive video diffusion, its bounds and the impossibility result."""
