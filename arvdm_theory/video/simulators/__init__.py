"""Simulators that stand in for DMLab and Minecraft: worlds, walks, and what must be remembered on them."""
