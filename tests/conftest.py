"""Settings shared by all tests."""

import os
import signal

# Before NumPy and PyTorch load: the matrices here are small, and with more threads than cores they only wait for
# each other.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# A shell makes its background jobs deaf to Ctrl-C, which interrupts are tested with.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

torch.set_num_threads(1)

# In CI every run tries the same examples, so that main never turns red by a throw of the dice; at home they vary.
# A busy machine is no fault of a strategy: nothing here is timed.
patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, **patient)
settings.register_profile("home", **patient)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "home"))

# So many times as many examples as a test asks for: ARVDM_EXAMPLES=10 pytest -m hypothesis
TIMES = int(os.environ.get("ARVDM_EXAMPLES", "1"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = {
        item.function for item in items if isinstance(item, pytest.Function)
    }  # one, however often it is tried
    for test in tests if TIMES > 1 else ():
        own = getattr(test, "_hypothesis_internal_use_settings", None)
        if own is not None:
            test._hypothesis_internal_use_settings = settings(own, max_examples=TIMES * own.max_examples)
