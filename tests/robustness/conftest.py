"""A small data set in TECO's layout."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def dmlab(tmp_path: Path) -> Path:
    """Five clips of 12 frames, 16 x 16."""
    root = tmp_path / "dmlab"
    for i in range(5):
        path = root / "train" / str(i % 2) / f"clip{i}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(i)
        np.savez_compressed(
            path, video=rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8), actions=np.arange(12) % 3
        )
    return root
