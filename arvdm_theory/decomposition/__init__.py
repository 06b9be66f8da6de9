"""The exact error decomposition."""
