"""The one result: its JSON, whose keys others script against, its figures, and how a notebook shows it."""

import json
import math

import matplotlib as mpl

mpl.use("agg")

import pytest
import torch
from matplotlib.figure import Figure

from arvdm_theory import (
    Codebook,
    FiniteStateVideo,
    PerturbedScore,
    Plan,
    References,
    Result,
    generate,
    ledger,
    measured_clip_kl,
    outpainting,
    predicted_clip_kl,
    reference_video,
    sticky_chain,
)

KEYS = [
    "kl", "trajectory_kl", "girsanov", "ie", "nie_init", "path_init", "path_kl", "closed", "lower_bound", "floor",
    "ar_step_kl", "nie_ar", "de_ar", "see_ar", "cross_ar", "mb", "clip_kl", "clip_bound", "ar_step_error",
    "clip_w2", "accumulation_bound", "notes",
]  # fmt: skip
TERMS = {"IE", "NIE_AR", "DE", "SEE", "CROSS", "MB"}
PLAN = outpainting(2, References.last(2), reverse_steps=6, init_steps=6)


def exact() -> Result:
    return ledger(reference_video(), PLAN, 3, score=PerturbedScore(0.1), accumulation=True)


def sampled() -> Result:
    video = FiniteStateVideo(sticky_chain(2, 0.8), Codebook(torch.tensor([[-1.0], [1.0]]), variance=0.05))
    plan = Plan((3.0, 3.0), 2, 3.0, 4, 4, references=References.last(1), floor=0.05)
    return ledger(video, plan, 2, samples=256, accumulation=True)


def rollouts() -> tuple[Result, Result]:
    video, score = reference_video(), PerturbedScore(0.1)
    made = generate(score, PLAN, 3, 400, video=video)
    return predicted_clip_kl(video, PLAN, 3, score), measured_clip_kl(video, made, PLAN, 3)


@pytest.mark.parametrize("make", [exact, sampled])
def test_the_keys_of_a_ledgers_json_are_frozen(make: object) -> None:
    result = make()  # type: ignore[operator]
    content = json.loads(result.to_json())
    assert list(content) == KEYS
    assert content == json.loads(json.dumps(result.to_dict()))
    for key in KEYS[:11]:
        assert content[key] == result.totals[key]
        assert content[key] is not None or content["notes"][key]
    for key in KEYS[11:-1]:
        assert content[key] is not None or content["notes"].get(key, content["notes"].get(key.removesuffix("_ar")))
        assert content[key] is None or len(content[key]) == int(result.table.ar_step.max())


def test_what_is_null_in_json_says_why() -> None:
    """Python's None and infinite terms; nothing that is no JSON is written."""
    result = ledger(reference_video(), PLAN, 2, step="ddim", accumulation=True)
    text = result.to_json(indent=None)
    assert "Infinity" not in text
    assert "NaN" not in text
    content = json.loads(text)
    assert content["de_ar"] is content["trajectory_kl"] is None
    assert all(content["notes"][key] for key in KEYS[:-1] if content[key] is None)


@pytest.mark.parametrize("make", [exact, sampled])
def test_rows_of_a_term_add_up_to_its_total(make: object) -> None:
    result = make()  # type: ignore[operator]
    table = result.table
    assert list(table.columns) == ["stage", "ar_step", "term", "form", "value", "stderr", "ci_low", "ci_high"]
    for term, total in (("DE", "de"), ("SEE", "see"), ("CROSS", "cross"), ("MB", "mb"), ("NIE_AR", "nie_ar")):
        rows = table[table.term == term].value
        assert math.fsum(rows) == pytest.approx(result.totals[total], rel=1e-12, abs=1e-12)
    assert (table.ci_low <= table.value).all()
    assert (table.value <= table.ci_high).all()
    assert ((table.stage == "init") == (table.ar_step == 0)).all()
    if result.totals["trajectory_kl"] is not None:
        whole = math.fsum(table[table.term.isin(TERMS)].value)
        assert whole == pytest.approx(result.totals["trajectory_kl"], rel=1e-12)
    if result.totals["lower_bound"] is not None:
        assert result.totals["lower_bound"] == pytest.approx(
            result.totals["ie"] + result.totals["floor"], rel=1e-12
        )


def test_a_column_is_one_term_over_the_ar_steps() -> None:
    result = exact()
    for term in ("DE", "MB", "CLIP_KL"):
        rows = result.table[(result.table.stage == "ar") & (result.table.term == term)]
        assert result.column(term) == [float(rows[rows.ar_step == k].value.iloc[0]) for k in (1, 2, 3)]
    assert result.column("IE") == []
    assert result.column("CLIP_KL", "no such form") == []


@pytest.mark.parametrize("make", [exact, sampled])
def test_a_ledger_draws_its_terms(make: object) -> None:
    figure = make().plot()  # type: ignore[operator]
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    axes = [axis for axis in figure.axes if axis.has_data()]
    assert axes
    texts = {text.get_text() for text in [*figure.legends, *(a.get_legend() for a in axes)] if text is not None
             for text in text.get_texts()}  # fmt: skip
    texts |= {axis.get_title() for axis in axes} | {axis.get_ylabel() for axis in axes}
    assert any("DE" in text for text in texts)


def test_predictions_and_measurements_draw_their_curves_and_write_their_forms() -> None:
    for result, kind in zip(rollouts(), ("prediction", "measurement"), strict=True):
        assert result.kind == kind
        assert set(result.table.term) == {"CLIP_KL"}
        figure = result.plot()
        figure.canvas.draw()
        assert any(axis.has_data() for axis in figure.axes)
        content = json.loads(result.to_json())
        assert set(content) == {*result.table.form, "notes"}
        for form in result.table.form.unique():
            assert content[form] == result.column("CLIP_KL", form)
            assert len(content[form]) == 3


def test_a_notebook_shows_totals_table_and_notes() -> None:
    result = ledger(reference_video(), PLAN, 2, step="ddim")
    html = result._repr_html_()
    assert html.count("<table") == 1
    assert f"kl {result.totals['kl']:.6g}" in html
    for name, text in result.notes.items():
        assert f"<li>{name}: {text}</li>" in html
    several = sampled()
    shown = several._repr_html_()
    for name, error in several.stderr.items():
        if error and several.totals[name] is not None:
            assert f"{name} {several.totals[name]:.6g} ± {error:.2g}" in shown
    for term in ("NIE_AR", "DE", "SEE", "MB"):
        assert term in shown
