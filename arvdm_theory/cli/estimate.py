"""``arvdm estimate``: (conditional) mutual information or KL divergence of samples in .npy files."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from arvdm_theory.cli.arguments import seed, whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from arvdm_theory.information.estimators import Dependence

__all__ = ["configure", "run"]

# Named here so that --help imports nothing heavy; a test holds them against the library's own.
METHODS = (
    "calibrated", "gaussian", "copula", "ksg1", "ksg2", "mixed", "miller-madow", "shrinkage", "plug-in",
)  # fmt: skip
NEURAL_METHODS = ("classifier", "infonce", "dv", "nwj")
DIVERGENCES = ("calibrated", "gaussian", "knn")
NEURAL_DIVERGENCES = ("classifier", "dv", "nwj")

_EPILOG = """\
Two jobs, in nats; every array has one row a sample, shape (n, d) or (n,):
  --x X.npy --z Z.npy             mutual information I(X; Z): rows of the two belong together
  --x X.npy --z Z.npy --y Y.npy   conditional mutual information I(X; Z | Y)
  --p P.npy --q Q.npy             divergence KL(P || Q): two unrelated samples, of any two lengths

methods for I(X; Z) and I(X; Z | Y):
  calibrated    nearest neighbours, corrected by a fitted copula where re-paired samples bear it out; equal
                values are put in random order, which changes no information (default for continuous and
                rounded columns)
  mixed         nearest neighbours that count coinciding samples (default for columns with atoms, as black
                pixels or rectified values, and for columns of few values beside continuous ones)
  miller-madow  table of counts, first-order bias removed (default for columns of few values alone)
  gaussian      from the covariance: right if all is jointly Gaussian
  copula        the same on ranks: right if some rising map of each column makes it so
  ksg1, ksg2    nearest neighbours alone (Kraskov et al.), for few dimensions
  shrinkage     table of counts, shrunk: for tables with many cells
  plug-in       table of counts as it is: too large
methods for KL(P || Q):
  calibrated    nearest neighbours, their bias on fitted Gaussian laws removed (default)
  knn           nearest neighbours alone, for few dimensions (default for atoms and columns of few values)
  gaussian      from means and covariances, bias removed: right if both are Gaussian
neural methods for both (never the default; they train networks, which takes seconds to minutes):
  classifier    tells true samples from re-paired ones (P from Q), evaluated as Donsker-Varadhan bound
  dv            trained by the Donsker-Varadhan bound (MINE)
  nwj           trained and evaluated by the bound of Nguyen, Wainwright and Jordan
  infonce       contrastive bound, at most the log of the batch; not for KL
  Each value is a lower bound evaluated on samples that its critic has not seen; I(X; Z | Y) is a difference of
  two such bounds and may err either way. The interval covers the spread of those held-out samples only, not what
  the critic has missed.

Two lines after the estimate say what was seen in the samples and what was taken for it, and why. Copies of rows
are left out; where one side is a function of the other, or P and Q share rows, there is no estimate.
A warning names what may be wrong with a number. Values are never cut off at 0. --json writes value, stderr,
ci_low, ci_high, method, n, k and warnings, and with --test the test.
"""

EXAMPLES = (
    "arvdm estimate --x demo/x.npy --z demo/z.npy",
    "arvdm estimate --x demo/x.npy --z demo/z.npy --y demo/y.npy --test",
    "arvdm estimate --p demo/p.npy --q demo/q.npy --json -",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options; imports nothing heavy."""
    parser.description = (
        "Mutual information, conditional mutual information or KL divergence of samples, with honest uncertainty."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("--x", default=None, metavar="X.npy", help="samples of X")
    add("--z", default=None, metavar="Z.npy", help="samples of Z")
    add("--y", default=None, metavar="Y.npy", help="samples of the condition Y")
    add("--p", default=None, metavar="P.npy", help="samples of P")
    add("--q", default=None, metavar="Q.npy", help="samples of Q")
    add(
        "--method", choices=tuple(dict.fromkeys(METHODS + NEURAL_METHODS + DIVERGENCES)), default=None,
        metavar="METHOD", help="the estimator, see below (default: chosen from the samples)",
    )  # fmt: skip
    add("--autocorrelated", action="store_true", help="rows are consecutive: take standard errors in blocks")
    add("--test", action="store_true", help="test I(X; Z) = 0 or I(X; Z | Y) = 0 too, by permutations")
    add("--permutations", type=whole(), default=199, metavar="N", help="of the test (default: 199)")
    add("--seed", type=seed, default=0, help="of subsamples, drawn samples and networks (default: 0)")
    add("--json", default=None, metavar="OUT.json", help="write the estimate there too")


def run(args: argparse.Namespace) -> int:
    """Prints the estimate, its warnings on stderr, and writes the JSON.

    Raises:
        ValueError: for a mixture of the two jobs, files that hold no such samples, or a method of the other job.
    """
    divergence = _is_divergence(args)

    import sys
    import warnings

    from arvdm_theory.arrays import load_array
    from arvdm_theory.executors import one_thread
    from arvdm_theory.files import check_outputs, write_json
    from arvdm_theory.information.estimators import (
        EstimationWarning,
        estimate_divergence,
        estimate_information,
    )

    names = (args.p, args.q) if divergence else (args.x, args.z, args.y)
    check_outputs({"--json": args.json}, names)
    arrays = [load_array(name) for name in names if name is not None]
    _afford(arrays, args)
    dependence: Dependence = "autocorrelated" if args.autocorrelated else "independent"
    with one_thread(), warnings.catch_warnings():
        # They are printed below, one line each.
        warnings.simplefilter("ignore", EstimationWarning)
        estimate = (estimate_divergence if divergence else estimate_information)(
            *arrays, method=args.method, dependence=dependence, seed=args.seed
        )
    test = None
    if args.test:
        from arvdm_theory.information.estimators import independence_test

        test = independence_test(*arrays, permutations=args.permutations, dependence=dependence, seed=args.seed)
    if args.json is not None:
        content: dict[str, Any] = {
            "value": estimate.value,
            "stderr": estimate.stderr,
            "ci_low": estimate.ci_low,
            "ci_high": estimate.ci_high,
            "method": estimate.method,
            "n": estimate.n,
            "k": estimate.k,
            "warnings": estimate.warnings,
        }
        if test is not None:
            names_of_test = ("p_value", "statistic", "permutations", "lag", "n", "exchanged")
            content["test"] = {name: getattr(test, name) for name in names_of_test}
        write_json(args.json, content)
    for warning in estimate.warnings:
        print(f"arvdm estimate: warning: {warning}", file=sys.stderr)
    what = "KL(P || Q)" if divergence else "I(X; Z)" if args.y is None else "I(X; Z | Y)"
    sizes = f"n = {estimate.n}" + (f", m = {len(arrays[1])}" if divergence else "")
    print(
        f"{what} = {estimate.value:.4f} ± {estimate.stderr:.4f} nats, 95 % interval [{estimate.ci_low:.4f}, "
        f"{estimate.ci_high:.4f}], {estimate.method}, {sizes}"
    )
    for line in str(estimate.diagnosis).splitlines():
        print(f"  {line}")
    if test is not None:
        how = {
            "all": "permutations",
            "cells": "permutations within cells of alike y",
            "pairs": "exchanges of near pairs, of less power: what y explains takes many terms",
            "alike pairs": "exchanges of near and alike pairs, of little power: no regression on y seems to fit",
            "shifts": f"circular shifts by multiples of {test.lag}",
        }[test.exchanged]
        print(f"p = {test.p_value:.4f} for {what} = 0 ({test.permutations} {how})")
    return 0


def _afford(arrays: list[NDArray[Any]], args: argparse.Namespace) -> None:
    """Refuses what would take too long; times of one core, to a factor of a few."""
    from arvdm_theory.limits import require

    rows = max((len(array) for array in arrays if array.ndim), default=0)
    columns = sum(array[:1].size for array in arrays if array.ndim)
    # Nearest neighbours: searched in trees for few columns, among all rows for many.
    seconds = 1e-4 * rows + (1e-8 * columns * rows**2 if columns > 8 else 0.0)
    if args.test:
        seconds *= 1 + args.permutations / 20
    if args.method in NEURAL_METHODS:
        seconds += 2e-3 * rows
    memory = 8.0 * 20 * sum(array.size for array in arrays)
    require(f"the estimate from {rows} rows and {columns} columns", seconds=seconds, memory=memory)


def _is_divergence(args: argparse.Namespace) -> bool:
    """Which of the two jobs is asked for."""
    information = [name for name in "xzy" if getattr(args, name) is not None]
    divergence = [name for name in "pq" if getattr(args, name) is not None]
    if information and divergence:
        given = ", ".join(f"--{name}" for name in information + divergence)
        raise ValueError(f"give --x and --z (and --y) for an information, or --p and --q for KL, not {given}")
    if divergence:
        needed, given_names = "pq", divergence
    else:
        needed, given_names = "xz", information
    missing = [f"--{name}" for name in needed if name not in given_names]
    if not information and not divergence:
        raise ValueError("give --x and --z (and --y) for an information, or --p and --q for KL")
    if divergence and args.test:
        raise ValueError("--test asks whether X and Z are independent: it needs --x and --z, not --p and --q")
    if missing:
        raise ValueError(f"--{given_names[0]} needs {' and '.join(missing)} too")
    known = DIVERGENCES + NEURAL_DIVERGENCES if divergence else METHODS + NEURAL_METHODS
    if args.method is not None and args.method not in known:
        what = "KL(P || Q)" if divergence else "an information"
        raise ValueError(f"--method {args.method} does not estimate {what}; there are {', '.join(known)}")
    return bool(divergence)
