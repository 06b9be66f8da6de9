"""Laws of videos that are known exactly."""
