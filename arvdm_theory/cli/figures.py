"""``arvdm figures``: the figures of a run drawn again from its tables, for print or for slides."""

from __future__ import annotations

import argparse

EXAMPLES = (
    "arvdm figures demo/verify",
    "arvdm figures demo/verify --format pdf --width 5.5 --style paper --out demo/print",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = (
        "A run is a folder with tables, as verify, experiment and video sweep make it; nothing is computed. "
        "Beside every figure lies its caption as .txt: what is shown, what was measured (video, plan, M, K, T, n, "
        "seed) and by which commit. Fonts are embedded as TrueType; text has 8 to 9 points (paper) or 14 to 16 "
        "(talk) at the width that is asked for."
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="folder of the run")
    add("--format", choices=("png", "pdf", "svg"), default="png", help="of the files")
    add("--style", choices=("paper", "talk"), default="paper", help="sizes of text for print or for slides")
    add("--width", type=float, default=None, metavar="INCHES",
        help="of every figure (default: paper 5.5, talk 10)")  # fmt: skip
    add("--only", nargs="+", metavar="NAME", default=None, help="draw these figures alone")
    add("--out", metavar="DIR", default=None, help="where they go (default: RUN/figures)")


def run(args: argparse.Namespace) -> int:
    """Draws them and names the files."""
    from pathlib import Path

    from arvdm_theory.experiments import drawn_from
    from arvdm_theory.files import check_folder
    from arvdm_theory.report.style import draw_all, style

    folder = Path(args.run)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder of a run")
    with style(args.style, args.width):  # says before any work what is wrong with a width
        pass
    experiment, figures = drawn_from(folder)
    if args.only is not None:
        unknown = [name for name in args.only if name not in figures]
        if unknown:
            raise ValueError(f"{folder} has no figure {unknown[0]}; it has {', '.join(figures)}")
        figures = {name: figures[name] for name in args.only}
    place = folder / "figures" if args.out is None else Path(args.out)
    check_folder("--out", place)
    drawn = draw_all(folder, figures, place, args.format, args.style, args.width)
    print(f"of {experiment}, each with its caption (.txt):")
    print("\n".join(str(path) for path in drawn))
    return 0
