"""Rollouts of trained video networks by plan: what is lost by drift, and what by the plan itself."""
