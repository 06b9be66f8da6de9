"""Experiments as functions: config in, tidy table with provenance out."""
