"""Denoisers and their memory."""
