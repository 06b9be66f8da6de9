"""Verdicts on claims: what they are made of is right, and their command writes what it prints."""

import json
from pathlib import Path

import pytest

from arvdm_theory import References, memory_bottleneck, outpainting, reference_video
from arvdm_theory.cli import main
from arvdm_theory.experiments.claims import CLAIMS, page, run

QUICK = ("decomposition", "impossibility", "blind-metrics", "accumulation", "clean-context")


def test_the_command_writes_the_verdicts_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, written = tmp_path / "claims.json", tmp_path / "claims.md"
    assert main(["claims", *QUICK, "--json", str(out), "--page", str(written)]) == 0
    found = {each["id"]: each for each in json.loads(out.read_text())}
    assert list(found) == list(QUICK)
    shown = capsys.readouterr().out
    for name, each in found.items():
        assert f"{name}: {each['verdict']}" in shown
        assert each["statement"] in written.read_text()


def test_numbers_of_the_theory_page() -> None:
    """Reference numbers: AR(1), outpainting w = 2, one clean reference, 24 AR steps of the exact score."""
    found = {each.id: each for each in run(QUICK, progress=False)}
    growth = found["accumulation"].numbers
    assert growth["AR(1) 0.8: KL of clip 1, 12, 24"][-1] == pytest.approx(0.13952, abs=5e-6)
    assert growth["AR(1) 0.8: the saturating bound at 24"] >= growth["AR(1) 0.8: KL of clip 1, 12, 24"][-1]
    assert growth["AR(1) 0.99: KL of clip 1, 12, 24"][-1] < growth["AR(1) 0.99: the saturating bound at 24"]
    assert found["decomposition"].verdict == "confirmed exactly"
    assert max(found["decomposition"].numbers.values()) < 1e-9
    floor = found["impossibility"].numbers["Σ MB, which no sampler of the plan beats"]
    for name, value in found["impossibility"].numbers.items():
        if name.startswith("KL(clean)"):
            assert value >= floor
    context = found["clean-context"]
    assert context.verdict.startswith("false: it costs KL")
    # Ideal kernels with clean references pay Σ MB, and the little that pure noise still says at T = 6.
    plan = outpainting(2, References.last(4), 10)
    least = sum(float(memory_bottleneck(reference_video(), plan, k)) for k in range(1, 13))
    assert context.numbers["ideal kernels, M = 10, clean context: KL(clean)"] == pytest.approx(least, rel=1e-3)
    assert context.numbers["ideal kernels, M = 10, matched context: KL(clean)"] > 5.8


def test_every_claim_has_one_name_a_statement_and_a_source() -> None:
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.statement.endswith(".")
        assert claim.source
    assert "# Claims" in page([])


def test_an_unknown_claim_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "perpetual-motion"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "perpetual-motion" in said
    assert "decomposition" in said
