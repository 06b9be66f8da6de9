"""Readers of real clips: files in, arrays out."""
