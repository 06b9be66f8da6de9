"""Which sum ranks schedulers once the score errs? With exact erring scores, and with trained networks.

The paper's second version takes the sum of per-step errors for a predictor of degradation over schedulers. With
the exact score, where discretisation dominates, that sum does not rank level grids (:mod:`..verify.schedulers`).
Here the score errs, by more and more, so that score estimation comes to dominate:

- *exactly*: three affine errors of every size, for which every number is a closed form: s* - e W (``window``),
  s* - e W/σ (``noise``, an error of the predicted noise, as networks make it) and s* + e/σ (``offset``);
- *trained*: networks that are trained once on continuous levels, for more and fewer updates and on few videos, and
  are then run on every grid. Their sums are averages over true data, Σ E_k is moment-matched
  (:mod:`arvdm_theory.decomposition.generated`), linear response is that of :mod:`arvdm_theory.rollout.predict`,
  and both KLs are measured on rollouts, to the Gaussian of their moments.

For w = Δ and clean references KL(clean) = IE + Σ (E_k + MB_k), and MB_k is the same for every grid: that Σ E_k
ranks the grids by KL(clean) is then next to an identity, and what its correlation shows is how well E_k is
estimated. The last clip's KL is not tied to it so.

Intervals are percentile bootstraps over grids and, of trained networks, over networks too: they say how much
hangs on which grids and networks were taken. No video here is one that the budgets and the networks' size were
chosen on (that was AR(1) 0.8).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from arvdm_theory.decomposition.generated import generated_error
from arvdm_theory.decomposition.ledger import ledger_terms
from arvdm_theory.decomposition.terms import LedgerTerms
from arvdm_theory.diffusion.scores import ExactScore
from arvdm_theory.experiments.networks import Job, Network, Preset, Setting, train_job
from arvdm_theory.experiments.ranks import interval, spearman
from arvdm_theory.experiments.record import Cell
from arvdm_theory.experiments.verify.schedulers import GRIDS
from arvdm_theory.experiments.videos import VIDEOS, Video
from arvdm_theory.laws.gaussian_window import AffineMap, WindowLaw
from arvdm_theory.laws.linear import reference_video
from arvdm_theory.noise import sigma2
from arvdm_theory.number import Number
from arvdm_theory.plan import Plan, References
from arvdm_theory.rollout.measure import measured_kl
from arvdm_theory.rollout.predict import predicted_clip_kl
from arvdm_theory.training.config import TrainingConfig

__all__ = [
    "KINDS",
    "PRESETS",
    "SUMS",
    "ErringScore",
    "correlations",
    "exact_sums",
    "headline",
    "networks",
    "run",
    "trained_sums",
]

_HORIZON, _FLOOR, _WINDOW = 6.0, 0.001, 2

SUMS = {
    "per_step": "sum of per-step errors",
    "girsanov": "Girsanov form",
    "ar_step": "Σ E_k, errors of AR steps",
    "response": "linear response: the last clip's KL",
}
"""What might rank schedulers; linear response is exact, and left out, where the score is affine."""
TARGETS = ("kl", "last_clip")

# Updates, the size of the training set (None: endless), and the rest by name.
_TRAININGS = {
    "10 updates": (10, None),
    "100 updates": (100, None),
    "1000 updates": (1000, None),
    "1000 updates on 16 videos": (1000, 16),
}

PRESETS = {
    "smoke": Preset(
        Network(options={"width": 16, "depth": 1}),
        TrainingConfig(steps=10, batch=32, levels="continuous", warmup=2, ema=0.9, tensorboard=False),
        rollouts=200, samples=200, ar_steps=2, reverse_steps=8, note="seconds on one core",
        options={
            "videos": {"AR(1) 0.8": 1}, "trainings": ("10 updates",), "networks": 2, "steps": (3,),
            "grids": ("uniform", "karras:7", "tangent:1"), "sizes": {"window": (0.1,), "noise": (0.1,)},
            "exact_ar_steps": 2, "draws": 50,
        },
    ),
    "cpu": Preset(
        Network(options={"width": 64, "depth": 2}),
        TrainingConfig(
            steps=1000, batch=128, levels="continuous", lr=3e-3, warmup=100, ema=0.99, tensorboard=False
        ),
        rollouts=1500, samples=1024, ar_steps=5, reverse_steps=40,
        note="a quarter of an hour on one core, under 1 GiB",
        options={
            "videos": {"reference": 4, "hidden state": 2}, "trainings": tuple(_TRAININGS), "networks": 3,
            "steps": (6, 40), "grids": GRIDS,
            "sizes": {
                "window": (0.05, 0.1, 0.2, 0.4, 0.8, -0.05, -0.1, -0.2),
                "noise": (0.05, 0.1, 0.2, 0.4, 0.8, -0.05, -0.1, -0.2),
                "offset": (0.1, 0.2, 0.4, 0.8),
            },
            "exact_ar_steps": 8, "draws": 2000,
        },
    ),
    "gpu": Preset(
        Network("transformer", options={"width": 256, "depth": 6, "heads": 8}),
        TrainingConfig(steps=30_000, batch=2048, levels="continuous", lr=3e-4, warmup=1000, ema=0.999),
        rollouts=50_000, samples=20_000, ar_steps=8, reverse_steps=64,
        note="one CUDA device of 24 GiB, about an hour a video",
        options={
            "videos": {"reference": 4, "hidden state": 2, "long memory": 4}, "trainings": tuple(_TRAININGS),
            "networks": 5, "steps": (6, 20, 80), "grids": GRIDS,
            "sizes": dict.fromkeys(("window", "noise"), (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, -0.05, -0.1, -0.2)),
            "exact_ar_steps": 8, "draws": 10_000,
        },
    ),
}  # fmt: skip
"""Options: references of every video; trainings; networks each; M; grids; sizes of every exact error; AR steps of
those; draws of the bootstrap. ``reverse_steps`` are the rows of the grid that is trained on."""


# -- exact scores that err -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ErringScore:
    """The exact score with an affine error of a named kind, on a Gaussian video.

    Attributes:
        kind: ``window``: s* - e W; ``noise``: s* - e W/σ; ``offset``: s* + e/σ.
        size: e.
    """

    kind: str
    size: float

    def affine(self, window_law: WindowLaw) -> AffineMap:
        """See :class:`arvdm_theory.diffusion.scores.AffineScore`."""
        exact, one = ExactScore().affine(window_law), window_law.identity
        per_noise = window_law.per_entry(torch.rsqrt(sigma2(window_law.levels[:-1])))
        if self.kind == "window":
            wrong: AffineMap = one * -self.size
        elif self.kind == "noise":
            rows = -self.size * per_noise
            wrong = AffineMap(one.window * rows.unsqueeze(-1), one.known * rows.unsqueeze(-1), one.bias * rows)
        else:
            wrong = one * 0.0 + self.size * per_noise
        total: AffineMap = exact + wrong
        return total


KINDS = {"window": "s* - e W", "noise": "s* - e W/σ", "offset": "s* + e/σ"}


def _plan(grid: str, steps: int, references: int) -> Plan:
    return Plan(
        (_HORIZON,) * _WINDOW, _WINDOW, _HORIZON, steps, steps, references=References.last(references),
        floor=_FLOOR, spacing=grid,
    )  # fmt: skip


def exact_sums(preset: Preset, cell: Cell) -> Iterator[tuple[str, str, float, float]]:
    """The sums and the KLs of every grid in closed form."""
    for grid in preset.options["grids"]:
        terms = ledger_terms(
            reference_video(), _plan(grid, cell["reverse_steps"], 4), preset.options["exact_ar_steps"],
            score=ErringScore(cell["kind"], cell["size"]), closed=False,
        )  # fmt: skip
        assert terms.ar_step_errors is not None
        assert terms.kl is not None
        assert terms.clips is not None
        values = _sums(terms, [1] * len(terms.ar)) | {
            "ar_step": terms.ar_step_errors.sum(), "kl": terms.kl, "last_clip": terms.clips[-1],
        }  # fmt: skip
        for name, number in values.items():
            yield grid, name, float(number), 0.0


def _sums(terms: LedgerTerms, times: list[int]) -> dict[str, Number]:
    """What is read off true data alone, AR step k counted ``times[k - 1]`` times."""
    found: dict[str, Number] = {}
    for stage, count in zip(terms.ar, times, strict=True):
        assert stage.girsanov is not None
        parts = {
            "per_step": stage.path, "girsanov": stage.girsanov.sum() + stage.nie, "de": stage.de.sum(),
            "see": stage.see.sum(),
        }  # fmt: skip
        found = {name: part * count + found.get(name, 0.0) for name, part in parts.items()}
    return found


# -- trained networks --------------------------------------------------------------------------------------


def _job(preset: Preset, video: str, training: str) -> Job[Video]:
    updates, videos = _TRAININGS[training]
    own = preset.training
    references = preset.options["videos"][video]
    plan = _plan("tangent:1", preset.reverse_steps, references)
    config = dataclasses.replace(
        own, steps=min(updates, own.steps), warmup=min(own.warmup, max(1, updates // 10)), ar_steps=_filled(plan)
    )
    return Job(VIDEOS[video](), plan, preset.network, config, videos=videos)


def _filled(plan: Plan) -> int:
    """The first AR step with all its references: of a stationary video all later ones are its like."""
    most = plan.references.most
    return next(k for k in range(1, 99) if len(plan.references_at(k)) == most)


def networks(preset: Preset) -> list[Job[Video]]:
    """The networks that a preset trains, of one seed."""
    options = preset.options
    return [_job(preset, video, training) for video in options["videos"] for training in options["trainings"]]


def trained_sums(preset: Preset, cell: Cell, setting: Setting) -> Iterator[tuple[str, str, Number]]:
    """The sums and the measured KLs of one network on every grid."""
    own = dataclasses.replace(setting, seed=1000 * setting.seed + cell["network"], progress=False)
    job, last = _job(preset, cell["video"], cell["training"]), preset.ar_steps
    video, references = job.video, preset.options["videos"][cell["video"]]
    score = train_job(job, own).as_score()
    for grid in preset.options["grids"]:
        plan = _plan(grid, cell["reverse_steps"], references)
        filled = _filled(plan)
        times = [1] * (filled - 1) + [last - filled + 1]
        given: dict[str, Any] = {"samples": preset.samples, "seed": own.seed}
        terms = ledger_terms(video, plan, filled, score=score, memory=False, closed=False, **given)
        for name, number in _sums(terms, times).items():
            yield grid, name, number
        errors = [generated_error(video, plan, k, score, **given) for k in range(1, filled + 1)]
        yield grid, "ar_step", _added(errors, times)
        predicted = predicted_clip_kl(video, plan, last, score, bound=False, groups=8, **given)
        row = predicted.table[(predicted.table.ar_step == last) & (predicted.table.form == "linear")].iloc[0]
        yield grid, "response", Number.stated(row.value, row.stderr, method="linear response", n=preset.samples)
        made: Tensor = own.generate(score, plan, last, preset.rollouts, video=video)
        for name, frames in (("kl", range(plan.clean_frames(last))), ("last_clip", plan.clip_frames(last))):
            yield grid, name, measured_kl(video, made, frames, _FLOOR)


def _added(errors: list[Number], times: list[int]) -> Number:
    total = errors[0] * times[0]
    for error, count in zip(errors[1:], times[1:], strict=True):
        total = total.plus_independent(error * count)
    return total


# -- the tables ----------------------------------------------------------------------------------------------


def run(setting: Setting) -> dict[str, pd.DataFrame]:
    """Three tables.

    ``scheduler-ranks-exact``: a row an (error, its size, M, grid, quantity), in nats; ``scheduler-ranks``: a row a
    (video, training, network, M, grid, quantity) with its standard error; quantities are those of :data:`SUMS`,
    ``kl`` of all clean frames and ``last_clip``, both of whichever sampler, and the totals ``de`` and ``see``.

    ``scheduler-ranks-correlations``: Spearman's correlation over the grids of every sum with both KLs, mean over
    networks, with its bootstrap interval, beside ``see_share``, the median of SEE/(DE + SEE).
    """
    preset, options = PRESETS[setting.preset], PRESETS[setting.preset].options
    sizes = [("window", 0.0), *((kind, size) for kind, own in options["sizes"].items() for size in own)]
    wrong: list[Cell] = [
        {"kind": kind, "size": size, "reverse_steps": m} for kind, size in sizes for m in options["steps"]
    ]
    columns = ["grid", "quantity", "value", "stderr"]
    exact = setting.table("scheduler-ranks-exact", wrong, lambda cell: exact_sums(preset, cell), columns)
    cells: list[Cell] = [
        {"video": video, "training": training, "network": network, "reverse_steps": m}
        for video in options["videos"]
        for training in options["trainings"]
        for network in range(options["networks"])
        for m in options["steps"]
    ]
    trained = setting.table("scheduler-ranks", cells, lambda cell: trained_sums(preset, cell, setting), columns)
    settings: list[Cell] = [
        {"study": "exact", "what": cell["kind"], "size": cell["size"], "reverse_steps": cell["reverse_steps"]}
        for cell in wrong
    ]
    settings += [
        {"study": video, "what": training, "size": float("nan"), "reverse_steps": m}
        for video in options["videos"]
        for training in options["trainings"]
        for m in options["steps"]
    ]

    def ranks(cell: Cell) -> pd.DataFrame:
        if cell["study"] == "exact":
            part = exact[(exact.kind == cell["what"]) & (exact["size"] == cell["size"])].assign(network=0)
        else:
            part = trained[(trained.video == cell["study"]) & (trained.training == cell["what"])]
        return correlations(part[part.reverse_steps == cell["reverse_steps"]], options["draws"], setting.seed)

    found = setting.table("scheduler-ranks-correlations", settings, ranks)
    return {"scheduler-ranks-exact": exact, "scheduler-ranks": trained, "scheduler-ranks-correlations": found}


def correlations(part: pd.DataFrame, draws: int, seed: int = 0) -> pd.DataFrame:
    """Rank correlations over the grids of one setting, mean over its networks, with bootstrap intervals."""
    wide = part.pivot_table(index=["network", "grid"], columns="quantity", values="value", sort=False)
    n, grids = part.network.nunique(), part.grid.nunique()
    values = {str(name): wide[name].to_numpy().reshape(n, grids) for name in wide}
    share = float(np.median(values["see"] / (values["de"] + values["see"])))
    rng = np.random.default_rng(seed)
    which = rng.integers(n, size=(draws, n))[:, :, None]
    picks = rng.integers(grids, size=(draws, grids))[:, None, :]
    rows = []
    for name in SUMS:
        for target in TARGETS:
            if name not in values:
                continue
            x, y = values[name], values[target]
            drawn = spearman(x[which, picks], y[which, picks]).mean(-1)
            rows.append((name, target, float(spearman(x, y).mean()), *interval(drawn), share, grids, n))
    names = ["sum", "target", "spearman", "ci_low", "ci_high", "see_share", "grids", "networks"]
    return pd.DataFrame(rows, columns=names)


def headline(tables: dict[str, pd.DataFrame]) -> str:
    """The correlations, a row a setting."""
    found = tables["scheduler-ranks-correlations"]
    found = found.assign(
        rank=[f"{r.spearman:.2f} ({r.ci_low:.2f}, {r.ci_high:.2f})" for r in found.itertuples()],
        share=found.see_share.round(2),
        size=found["size"].map("{:g}".format).replace("nan", ""),
    )
    index = ["study", "what", "size", "reverse_steps", "share"]
    parts = []
    for target, text in (("kl", "KL of all clean frames"), ("last_clip", "KL of the last clip")):
        own = found[found.target == target]
        shown = own.pivot_table(index=index, columns="sum", values="rank", aggfunc="first", sort=False)
        parts.append(f"Spearman's rank correlation over grids with the {text} (95 % bootstrap intervals);\nshare: "
                     f"SEE/(DE + SEE), median:\n{shown.fillna('').to_string()}")  # fmt: skip
    return "\n\n".join(parts)
