"""``arvdm estimate``: (conditional) mutual information of samples in .npy files, with honest uncertainty."""

from __future__ import annotations

import argparse

__all__ = ["configure", "run"]

# Named here so that --help imports nothing heavy; a test holds them against the library's own.
METHODS = (
    "calibrated", "gaussian", "copula", "ksg1", "ksg2", "mixed", "miller-madow", "shrinkage", "plug-in",
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options; imports nothing heavy."""
    parser.epilog = (
        "Estimates I(X; Z), or I(X; Z | Y) with --y, in nats. Arrays have one row a sample. Without "
        "--method the estimator is chosen by whether columns are discrete: miller-madow (all are), mixed "
        "(some are) or calibrated (none is)."
    )
    add = parser.add_argument
    add("--x", required=True, metavar="X.npy", help="samples of X, shape (n, d_x) or (n,)")
    add("--z", required=True, metavar="Z.npy", help="samples of Z, shape (n, d_z) or (n,)")
    add("--y", default=None, metavar="Y.npy", help="samples of the condition Y, shape (n, d_y) or (n,)")
    add("--method", choices=METHODS, default=None, help="the estimator (default: chosen from the samples)")
    add("--autocorrelated", action="store_true", help="rows are consecutive: take standard errors in blocks")
    add("--json", default=None, metavar="OUT.json", help="write the estimate there too")


def run(args: argparse.Namespace) -> int:
    """Prints the estimate, its warnings on stderr, and writes the JSON."""
    import sys
    import warnings

    from arvdm_theory.files import load_array, write_json
    from arvdm_theory.information.estimate import EstimationWarning
    from arvdm_theory.information.methods import estimate_information

    x, z = load_array(args.x), load_array(args.z)
    y = None if args.y is None else load_array(args.y)
    with warnings.catch_warnings():
        # They are printed below, one line each.
        warnings.simplefilter("ignore", EstimationWarning)
        estimate = estimate_information(
            x, z, y, method=args.method, dependence="autocorrelated" if args.autocorrelated else "independent"
        )
    if args.json is not None:
        content = {
            "value": estimate.value,
            "stderr": estimate.stderr,
            "ci_low": estimate.ci_low,
            "ci_high": estimate.ci_high,
            "method": estimate.method,
            "n": estimate.n,
            "k": estimate.k,
            "warnings": estimate.warnings,
        }
        write_json(args.json, content)
    for warning in estimate.warnings:
        print(f"arvdm estimate: warning: {warning}", file=sys.stderr)
    what = "I(X; Z)" if y is None else "I(X; Z | Y)"
    print(
        f"{what} = {estimate.value:.4f} ± {estimate.stderr:.4f} nats, 95 % interval [{estimate.ci_low:.4f}, "
        f"{estimate.ci_high:.4f}], {estimate.method}, n = {estimate.n}"
    )
    return 0
