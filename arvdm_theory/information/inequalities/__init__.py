"""Information inequalities proved or refuted in exact arithmetic."""
