"""The options that say which Gaussian video: a covariance, fitted clips, a spectrum, or a known one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from arvdm_theory.cli.arguments import whole

if TYPE_CHECKING:
    from arvdm_theory.laws.gaussian import GaussianVideo

# An image's spectrum is held as a whole.
_MOST_PIXELS = 1024

__all__ = ["add_video", "chosen_video", "video_files"]


def add_video(parser: argparse.ArgumentParser) -> None:
    """Adds them; :func:`chosen_video` reads them."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--covariance", metavar="COV.npy", help="(N·d, N·d) covariance, frame-major, zero mean")
    source.add_argument("--video", metavar="FITTED.npz", help="a video that `arvdm fit` wrote")
    source.add_argument(
        "--spectrum", metavar="SPECTRUM.npy",
        help="power over time of independent modes, (n,) or (modes, n), at 0 to ½ cycles a frame",
    )  # fmt: skip
    source.add_argument(
        "--known", metavar="NAME",
        help="ar1:φ (scalar frames), reference (that of this project's tables) or pixels:N (N x N, finer detail "
        "forgotten sooner)",
    )  # fmt: skip
    parser.add_argument("--frame-dim", type=whole(), metavar="D", help="d; needed with --covariance")


def video_files(args: argparse.Namespace) -> list[str]:
    """The files that the options name, which must not be overwritten."""
    return [path for path in (args.covariance, args.video, args.spectrum) if path is not None]


def chosen_video(args: argparse.Namespace) -> GaussianVideo:
    """The video that the options state.

    Raises:
        ValueError: naming what is wrong with it.
        OSError: if a file cannot be read.
    """
    from arvdm_theory.arrays import load_array
    from arvdm_theory.laws.fitted import load_fitted
    from arvdm_theory.laws.gaussian import ArrayVideo
    from arvdm_theory.laws.linear import spectral_video

    if args.covariance is None and args.frame_dim is not None:
        raise ValueError("--frame-dim is for --covariance; the others know their own")
    if args.video is not None:
        return load_fitted(args.video)
    if args.spectrum is not None:
        return spectral_video(load_array(args.spectrum), name=str(args.spectrum))
    if args.known is not None:
        return _known(args.known)
    if args.frame_dim is None:
        raise ValueError("--covariance needs --frame-dim")
    return ArrayVideo(load_array(args.covariance), args.frame_dim, name=str(args.covariance))


def _known(name: str) -> GaussianVideo:
    from arvdm_theory.laws.linear import ar1, reference_video
    from arvdm_theory.laws.pixels import ExponentialMemory, PixelVideo, PowerLaw

    kind, _, value = name.partition(":")
    try:
        if kind == "ar1":
            return ar1(float(value))
        if kind == "pixels" and int(value) > _MOST_PIXELS:
            raise ValueError(f"at most {_MOST_PIXELS} x {_MOST_PIXELS} pixels, got {value}")
        if kind == "pixels":
            return PixelVideo(int(value), int(value), PowerLaw(), ExponentialMemory(10.0, 1.0))
    except ValueError as error:
        raise ValueError(f"--known {name}: {error}") from None
    if name == "reference":
        return reference_video()
    raise ValueError(f"--known is ar1:φ, reference or pixels:N, as in ar1:0.9, got {name}")
