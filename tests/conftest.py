"""Settings shared by all tests."""

import os

import torch
from hypothesis import settings

# The ledger's matrices are small: with more threads than cores they only wait for each other.
torch.set_num_threads(1)

# In CI every run tries the same examples, so that main never turns red by a throw of the dice; at home they vary.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("home", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "home"))
