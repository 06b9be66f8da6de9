"""One experiment: its run and its figures."""
