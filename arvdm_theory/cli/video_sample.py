"""``arvdm video sample``: generates test windows with a trained network and scores what it retrieved."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from arvdm_theory.cli.arguments import whole
from arvdm_theory.cli.video_train import PLANS

if TYPE_CHECKING:
    from arvdm_theory.video.rollouts import Way

__all__ = ["configure", "run"]

EXAMPLES = ("arvdm video sample --run demo/cross --windows 4 --out demo/samples",)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options; imports nothing heavy."""
    parser.epilog = (
        "Writes truth/ and generated/ (clips for arvdm video evaluate), queries.csv (a row a query and source), "
        "retrieval.csv (rates and qualities with 95 % intervals), and the first windows as "
        "figures/film-strips.png and figures/grid.mp4 (above the truth, below the network; red frames: generated)."
    )
    add = parser.add_argument
    add("--run", required=True, metavar="DIR", help="folder of the run, as arvdm video train made it")
    add("--windows", type=whole(), metavar="N", default=None, help="how many test windows (default: the preset's)")
    add("--rollout", action="store_true",
        help="long rollouts instead: writes decay.csv, quality against the rollout index, beside the prediction "
        "from one step")  # fmt: skip
    add("--plan", choices=PLANS, default=None, help="of rollouts (default: that of the training)")
    add("--context-noise", metavar="LEVEL[,LEVEL...]", default=None,
        help="of rollouts: noise the frames that are shown to these levels, the last frame's first; the last "
        "level is that of all older ones")  # fmt: skip
    add("--guidance", type=float, metavar="W", default=1.0, help="of rollouts: the weight of history guidance")
    add("--out", metavar="DIR", default=None, help="folder for what comes out (default: the run's own)")
    add("--no-figures", action="store_true", help="no film strips and no grid")


def run(args: argparse.Namespace) -> int:
    """Samples, writes, prints the summary."""
    from pathlib import Path

    from arvdm_theory.cli.tables import show_table
    from arvdm_theory.experiments.video.run import film_table
    from arvdm_theory.files import check_folder
    from arvdm_theory.tables import write_table
    from arvdm_theory.video.retrieval import SOURCES
    from arvdm_theory.video.rollouts import PROXIES, roll_out_folder
    from arvdm_theory.video.runs import load_run
    from arvdm_theory.video.samples import sample_folder, summarise, write_samples

    folder = Path(args.run)
    check_folder("--out", args.run if args.out is None else args.out)
    if args.windows is not None and args.windows < 1:
        raise ValueError(f"--windows: at least one window is sampled, got {args.windows}")
    way = _way(args)
    chosen = load_run(folder)
    out = folder if args.out is None else Path(args.out)
    if args.rollout:
        samples, table = roll_out_folder(chosen, folder, args.windows, way=way)
        out, name = (folder / "rollout" if args.out is None else out), "decay"
        own = table[table["source"] == SOURCES[0]]
        shown = own.iloc[:: max(len(own) // 8, 1)]
        shown = shown[["ahead", "psnr", "ssim", *(f"predicted_{p}" for p in PROXIES if way is None)]]
    else:
        samples, scores = sample_folder(chosen, folder, args.windows)
        table, name = summarise(scores), "retrieval"
        shown = table
    out.mkdir(parents=True, exist_ok=True)
    write_samples(samples, out)
    write_table(table, out / f"{name}.csv")
    if not args.rollout:
        write_table(scores, out / "queries.csv")
    film = film_table({chosen.memory: samples})
    write_table(film, out / "film.csv")
    if not args.no_figures:
        from arvdm_theory.experiments.video.film_figure import FILM
        from arvdm_theory.experiments.video.grid_figure import draw_grid
        from arvdm_theory.report.style import draw_all

        (out / "figures").mkdir(exist_ok=True)
        if not args.rollout:
            draw_all(out, FILM)
        draw_grid(film, out / "figures" / "grid.mp4")
    show_table(shown, "{:.3f}".format)
    print(f"{len(samples.windows)} windows, frames from {samples.given} on generated: {out}")
    return 0


def _way(args: argparse.Namespace) -> Way | None:
    """How rollouts are sampled; None for as the network was trained.

    Raises:
        ValueError: naming the option.
    """
    import math

    from arvdm_theory.video.rollouts import Way

    if args.plan is None and args.context_noise is None and args.guidance == 1:
        return None
    if not args.rollout:
        raise ValueError("--plan, --context-noise and --guidance are of long rollouts: add --rollout")
    if not math.isfinite(args.guidance):
        raise ValueError(f"--guidance is a finite number, got {args.guidance}")
    try:
        noise = tuple(float(level) for level in (args.context_noise or "").split(",") if level)
    except ValueError:
        raise ValueError(f"--context-noise is LEVEL or LEVEL,LEVEL..., got {args.context_noise!r}") from None
    if any(not 0 <= level < math.inf for level in noise):
        raise ValueError(f"--context-noise: levels are finite and at least 0, got {args.context_noise}")
    return Way(args.plan, noise, args.guidance)
