"""Episodes: what a simulator shows along a walk, and which frames it shows twice.

A *simulator* draws a *world* from a seed. A world says between which cells of its grid one can pass, and renders
the picture seen at any pose (:mod:`arvdm_theory.video.simulators.worlds`). A *trajectory*
(:class:`~arvdm_theory.video.simulators.trajectories.Trajectory`) walks from cell to cell. :func:`record` puts them
together: the same simulator, seed and trajectory give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.video.simulators.trajectories import Trajectory
from arvdm_theory.video.simulators.worlds import Simulator

__all__ = ["Episode", "episode_seed", "record"]


@dataclass(frozen=True, eq=False)
class Episode:
    """A recorded walk.

    Attributes:
        frames: uint8, shape (T, size, size, 3).
        actions: int64, shape (T,); action t is taken at frame t and leads to frame t + 1. The last one leads to a
            frame that is not recorded.
        poses: float64, shape (T, 3); x, y in cells and heading in degrees, as a world renders them.
        needles: int64, shape (n, 2): pairs (frame seen, frame queried) of equal pose, so of equal pixels. ``seen``
            is the last frame before ``queried`` at that pose, and lies more than ``context`` frames back: a model
            that remembers no more than ``context`` frames has lost it. Where steps slip, no pose is met twice:
            ``seen`` is then the nearest earlier one, within a step, where no frame of the context is so near.
        between: int64, shape (m, 3): (frame seen on one side, on the other, frame queried). The queried pose was
            never seen, but lies halfway between two that were, both last seen more than ``context`` frames back.
        context: the length of that short memory, in frames.
        seed: the seed.
        meta: simulator, world and trajectory, as JSON would hold them.
    """

    frames: NDArray[np.uint8]
    actions: NDArray[np.int64]
    poses: NDArray[np.float64]
    needles: NDArray[np.int64]
    between: NDArray[np.int64]
    context: int
    seed: int
    meta: Mapping[str, Any]


def record(simulator: Simulator, seed: int, trajectory: Trajectory) -> Episode:
    """Draws the world of the seed, walks through it and renders what is seen.

    A pose that is met again is rendered once.

    Raises:
        ValueError: if the world has no room for such a walk.
    """
    world_seed, walk_seed = (int(word) for word in np.random.SeedSequence(seed).generate_state(2))
    world = simulator.world(world_seed)
    path = trajectory.walk(world.passages, np.random.default_rng(walk_seed))
    distinct, which = np.unique(path.poses, axis=0, return_inverse=True)
    return Episode(
        frames=world.render(distinct)[which.reshape(-1)],
        actions=path.actions,
        poses=path.poses,
        needles=path.needles,
        between=path.between,
        context=trajectory.context,
        seed=seed,
        meta={
            "simulator": simulator.name,
            "size": simulator.size,
            "world": dict(world.description),
            "trajectory": asdict(trajectory),
        },
    )


def episode_seed(seed: int, *position: int) -> int:
    """The seed of one episode of a data set, e.g. of (split, number): independent of how many others there are.

    Example:
        >>> episode_seed(0, 1, 7) == episode_seed(0, 1, 7) != episode_seed(0, 1, 8)
        True
    """
    high, low = np.random.SeedSequence([seed, *position]).generate_state(2)
    return int(high >> 1) << 32 | int(low)
