"""Exact scores, single reverse steps and the two-stage rollout."""
