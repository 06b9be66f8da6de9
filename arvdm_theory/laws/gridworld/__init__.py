"""A walker in a randomly coloured map: the needle in a haystack."""
