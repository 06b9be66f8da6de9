"""Denoising score matching on the windows of a plan: the loop, its checkpoints, its resume."""
