"""One's own clips, network and plan, assessed: what is computed, and the report that it ends in."""
