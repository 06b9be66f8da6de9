"""How generated finite-state videos are measured: frames read back as pictures, laws compared on tables.

A frame is read as the picture nearest to it. Reading true frames that stand at the floor δ is a known channel,
P(read y' | shown y), so the true law of any read frames is a finite table, and with q̂ the table of n generated
videos the divergence KL(p ‖ q) is estimated by its plug-in value, first-order bias removed:

    Σ p log(p/q̂) - (1/2n) Σ p (1 - q̂)/q̂,    standard error² = (Σ p²/q̂ - 1)/n.

By the data-processing inequality it lies below the KL of the frames themselves: reading is done to both laws, at
the very end, and is no kernel of the ledger.

Source: Paninski 2003, Estimation of entropy and mutual information (first-order bias of plug-in estimates).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from arvdm_theory.decomposition.state_kernels import frames_law
from arvdm_theory.information.estimators import SampleError, conclude
from arvdm_theory.laws.emission import Codebook
from arvdm_theory.laws.finite import FiniteStateVideo
from arvdm_theory.noise import alpha, sigma2, standard_normal
from arvdm_theory.number import Number, half_width

__all__ = ["confusion_matrix", "decoded_kl", "decoded_law", "read_pictures"]

# Cells that the truth expects fewer of than this among the videos leave the first-order correction behind.
_FEW_IN_A_CELL = 5
# A cell of the truth that no video fell in is counted as half a video: it keeps the estimate finite, and is said.
_HALF_A_VIDEO = 0.5


def _codebook(video: FiniteStateVideo) -> Codebook:
    book = video.rendering.codebook
    if book is None:
        raise SampleError(f"the frames of {video.name!r} are no pictures of a codebook: they cannot be read")
    return book


def read_pictures(video: FiniteStateVideo, frames: Tensor, level: float = 0.0) -> Tensor:
    """The picture nearest to each frame (.., d) that stands at ``level``, as its symbol (..).

    The nearest picture to W/α is the most likely one, as every picture has the same white noise.

    Raises:
        SampleError: if the video's frames are not pictures of a codebook.
    """
    pictures = _codebook(video).pictures.to(frames)
    scale = math.sqrt(math.exp(-level))
    return torch.cdist(frames.flatten(0, -2) / scale, pictures).argmin(-1).reshape(frames.shape[:-1])


def confusion_matrix(video: FiniteStateVideo, level: float = 0.0, draws: int = 200_000, seed: int = 0) -> Tensor:
    """P(read y' | shown y) at ``level``, (symbols, symbols): exact for two pictures or without noise, else drawn.

    Args:
        video: its pictures.
        level: where the frames stand.
        draws: of a seeded Monte Carlo a symbol; an entry p is off by about sqrt(p/draws).
        seed: of them.
    """
    book = _codebook(video)
    at = torch.tensor(level, dtype=torch.float64)
    spread = float(torch.sqrt(book.variance + sigma2(at) / alpha(at) ** 2))
    if spread == 0:
        return torch.eye(book.symbols, dtype=torch.float64)
    # Only the coordinates within the pictures' affine hull matter: few, however large the frames are.
    centred = book.pictures.detach() - book.pictures.detach().mean(0)
    _, size, axes = torch.linalg.svd(centred, full_matrices=False)
    places = centred @ axes[size > 1e-12 * size.max()].mT
    if book.symbols == 2:
        miss = 0.5 * math.erfc(float((places[0] - places[1]).norm()) / 2 / spread / math.sqrt(2))
        return torch.tensor([[1 - miss, miss], [miss, 1 - miss]], dtype=torch.float64)
    noise = spread * standard_normal((draws, places.shape[1]), torch.Generator().manual_seed(seed))
    rows = [
        torch.bincount(torch.cdist(place + noise, places).argmin(-1), minlength=book.symbols) for place in places
    ]
    return torch.stack(rows).to(torch.float64) / draws


def decoded_law(video: FiniteStateVideo, frames: Sequence[int], level: float = 0.0) -> Tensor:
    """The true law of what is read in rising ``frames`` that stand at ``level``, (symbols,) * len(frames).

    Raises:
        TableSizeError: if the table of states is too large.
        SampleError: if the video's frames are not pictures of a codebook.
    """
    law = frames_law(video.chain, frames)
    channel = confusion_matrix(video, level)
    if video.emission is not None:
        channel = video.emission @ channel
    for _ in frames:
        law = torch.tensordot(law, channel, dims=([0], [0]))  # the first axis goes, a read one comes last
    return law


def decoded_kl(video: FiniteStateVideo, generated: Tensor, frames: Sequence[int], level: float = 0.0) -> Number:
    """KL(P ‖ Q) of what is read in some frames, P known and Q from generated videos, in nats.

    Args:
        video: the truth.
        generated: (n, F, d), frames at ``level``.
        frames: which, rising.
        level: δ, where clean frames stand.

    Raises:
        SampleError: for fewer than two videos, another shape, or a video without a codebook.
        TableSizeError: if the table of states is too large.

    Warns:
        EstimationWarning: where the truth has cells in which fewer than five videos are expected or none fell.
    """
    if generated.ndim != 3 or len(generated) < 2 or generated.shape[1] <= max(frames):
        raise SampleError(
            f"generated videos must have shape (n ≥ 2, more than {max(frames)} frames, d), got "
            f"{tuple(generated.shape)}"
        )
    truth = decoded_law(video, frames, level)
    symbols, n = truth.shape[0], len(generated)
    read = read_pictures(video, generated[:, list(frames)], level).cpu()
    place = torch.zeros(n, dtype=torch.long)
    for column in read.unbind(-1):
        place = place * symbols + column
    counts = torch.bincount(place, minlength=truth.numel()).to(torch.float64)
    p = truth.flatten()
    seen = p > 0
    p, counts = p[seen], counts[seen]
    empty = counts == 0
    q = torch.where(empty, torch.full_like(counts, _HALF_A_VIDEO), counts) / n
    value = float((p * torch.log(p / q)).sum() - (p * (1 - q) / q).sum() / (2 * n))
    stderr = math.sqrt(max(float((p**2 / q).sum()) - 1, 0.0) / n)
    notes: list[str] = []
    few = (p * n < _FEW_IN_A_CELL) | empty
    if bool(few.any()):
        notes.append(
            f"{int(few.sum())} of {len(p)} cells of the true table, of probability {float(p[few].sum()):.2g} "
            f"in all, hold few or none of {n} videos: the divergence there is rough; generate more."
        )
    return conclude(value, stderr, half_width(stderr), method="decoded table", n=n, notes=notes)
