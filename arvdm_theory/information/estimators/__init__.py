"""Information and divergence estimated from samples."""
