"""The page on own networks: its Python runs as it stands, one block after the other."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest

import arvdm_theory


def test_the_blocks_of_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("diffusers")
    page = (Path(arvdm_theory.__file__).parents[1] / "docs" / "own-networks.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 3
    room: dict[str, Any] = {"__name__": "page"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for block in blocks:
            exec(compile(block, "own-networks.md", "exec"), room)
    assert len(capsys.readouterr().out.splitlines()) == 4
