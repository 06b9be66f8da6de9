"""``arvdm lemma``: both sides of the impossibility lemma for a joint law and a kernel given as arrays."""

from __future__ import annotations

import argparse
import math
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from arvdm_theory.bounds.impossibility import LemmaCheck
    from arvdm_theory.information.discrete import FiniteLaw

__all__ = ["configure", "run"]

# What of a large kernel is printed.
_ROWS, _COLUMNS = 16, 8

EXAMPLES = (
    "arvdm lemma --joint demo/joint.npy --past 0 --input 1 --output 2",
    "arvdm lemma --joint demo/joint.npy --past 0 --input 1 --output 2 --kernel demo/kernel.npy",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options; imports nothing heavy."""
    parser.description = (
        "Check KL(P || P_past,in x Q) = I(out; past | in) + E KL(P_out|in || Q) for a joint law P over finitely "
        "many values and a kernel Q(out | in), and print both sides in nats. Exit code 0 if it holds (also where "
        "both sides are infinite), 1 if not, 2 for bad input."
    )
    parser.add_argument(
        "--joint", required=True, type=Path, metavar="P.npy",
        help="probabilities of the joint law, one axis a variable",
    )  # fmt: skip
    for name, meaning in (
        ("past", "the past"),
        ("input", "the input of the kernel (left out: it has none)"),
        ("output", "the output"),
    ):
        parser.add_argument(
            f"--{name}", required=name != "input", metavar="AXES",
            help=f"axes of {meaning}, counted from 0 and separated by commas; axes not named are summed out",
        )  # fmt: skip
    parser.add_argument(
        "--kernel", type=Path, metavar="Q.npy",
        help="Q(out | in), shape (*input sizes, *output sizes), axes in the order named; left out, it is the "
        "minimising kernel P(out | in)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write the result there as well")


def run(args: argparse.Namespace) -> int:
    """Checks, prints, and returns the exit code."""
    from arvdm_theory.arrays import load_array
    from arvdm_theory.bounds.impossibility import check_lemma
    from arvdm_theory.files import check_outputs, write_json
    from arvdm_theory.information.discrete import FiniteLaw, marginal

    check_outputs({"--json": args.json}, [args.joint, args.kernel])
    law = FiniteLaw(load_array(args.joint))
    roles = {name: _axes(getattr(args, name), name, law) for name in ("past", "input", "output")}
    for name in ("past", "output"):
        if not roles[name]:
            raise ValueError(f"--{name} must name at least one axis")
    kernel = None if args.kernel is None else load_array(args.kernel)
    try:
        check = check_lemma(law, roles["past"], roles["input"], roles["output"], kernel)
    except ValueError as error:
        if "row of the kernel must sum to 1" not in str(error):
            raise
        raise ValueError(
            f"{error}; a softmax in single precision is off by that: divide by the row sum"
        ) from error
    rest = [axis for axis in law.names if all(axis not in axes for axes in roles.values())]

    sizes = " x ".join(str(size) for size in law.probabilities.shape)
    print(f"joint law    {args.joint} ({sizes}); " + ", ".join(f"{r} = {_name(a)}" for r, a in roles.items()))
    if rest:
        print(f"summed out   {_name(rest)}")
    print(f"kernel       {args.kernel or 'P(out | in), the minimising one'}")
    print()
    print(f"cost         KL(P || P_past,in x Q)   {check.cost:.15g} nats")
    print(f"bottleneck   I(out; past | in)        {check.memory_bottleneck:.15g} nats")
    print(f"excess       E KL(P_out|in || Q)      {check.excess:.15g} nats")
    print(f"gap          cost - (bottleneck + excess) = {check.gap:.3g} (rounding explains {check.rounding:.1e})")
    print()
    print("minimising kernel P(out | in), a row for each input state, a column for each output state")
    for line in _table(check.minimiser, law.sizes(roles["input"]), law.sizes(roles["output"])):
        print(f"  {line}")
    if roles["input"] and (marginal(law, roles["input"]).probabilities == 0).any():
        print("  (input states of probability 0 have no conditional law: any row would do, theirs is uniform)")
    print()
    print("the lemma holds" if check.holds else "the lemma is VIOLATED beyond rounding: please report this law")
    if args.json is not None:
        axes = {name: [int(axis) for axis in named] for name, named in (*roles.items(), ("summed_out", rest))}
        write_json(args.json, {"axes": axes, **_record(check)})
    return 0 if check.holds else 1


def _axes(text: str | None, role: str, law: FiniteLaw) -> list[str]:
    """Axis numbers from '0,3', as the names that the law gives them."""
    words = [word.strip() for word in text.split(",")] if text else []
    for word in words:
        if not (word.isascii() and word.isdigit()) or int(word) >= law.probabilities.ndim:
            raise ValueError(
                f"--{role} takes axes of the joint law, 0 to {law.probabilities.ndim - 1}, separated by commas; "
                f"got {word!r}"
            )
    return [str(int(word)) for word in words]


def _name(axes: list[str]) -> str:
    return {0: "nothing", 1: "axis "}.get(len(axes), "axes ") + ", ".join(axes)


def _table(kernel: NDArray[np.float64], inputs: tuple[int, ...], outputs: tuple[int, ...]) -> list[str]:
    """The kernel in columns, cut to a screen."""
    rows = kernel.reshape(math.prod(inputs), math.prod(outputs))
    states = [",".join(map(str, state)) for state in product(*map(range, inputs))][:_ROWS]
    columns = [",".join(map(str, state)) for state in product(*map(range, outputs))][:_COLUMNS]
    cut = " ..." if rows.shape[1] > _COLUMNS else ""
    width = max(len(word) for word in ("in/out", *states))
    lines = [f"{'in/out':>{width}}  " + " ".join(f"{column:>10}" for column in columns) + cut]
    for state, row in zip(states, rows[:_ROWS], strict=True):
        lines.append(f"{state:>{width}}  " + " ".join(f"{value:>10.4g}" for value in row[:_COLUMNS]) + cut)
    if len(rows) > _ROWS or cut:
        lines.append(f"(the first {len(states)} of {len(rows)} rows, {len(columns)} of {rows.shape[1]} columns)")
    return lines


def _record(check: LemmaCheck[float, NDArray[np.float64]]) -> dict[str, object]:
    """The result for JSON, which has no infinity: it is the string "inf" there."""
    names = ("cost", "memory_bottleneck", "excess", "gap", "rounding")
    numbers = {name: float(getattr(check, name)) for name in names}
    return {
        "unit": "nats",
        **{name: value if math.isfinite(value) else str(value) for name, value in numbers.items()},
        "holds": check.holds,
        "minimising_kernel": check.minimiser.tolist(),
    }
