"""Other people's schedulers, networks and weights: read as they are, nothing of theirs is imported unasked."""
