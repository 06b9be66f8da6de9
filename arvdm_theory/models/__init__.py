"""Small denoisers of a window at per-frame noise levels, and the memory that they share."""
