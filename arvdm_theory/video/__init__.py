"""First-person video: simulators that stand in for DMLab and Minecraft, retrieval and quality metrics."""
