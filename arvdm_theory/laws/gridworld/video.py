"""A walker in a randomly coloured map: the needle-in-a-haystack video.

Every cell c of a map has a colour drawn independently from its prior p_c. A walker follows a known path, given
or random but independent of the colours, and a frame is a picture of what it sees::

    C_c ~ p_c independently,    X_t[pixel] = colour of C at cell π(pose_t)[pixel]  (+ observation noise),

so a view is one table π: pose → pixel → cell, and without noise a frame *is* the colours of the visible cells
V(pose) = the cells named in π(pose). Three views fill that table: a colour patch, a small top-down picture and a
raycast first-person picture. Coming back to a cell after a long walk is the needle in the haystack.
"""

from __future__ import annotations

import colorsys
import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from torch import Tensor

from arvdm_theory.interfaces import VideoBatch
from arvdm_theory.laws.gridworld.view import GREYS, View
from arvdm_theory.laws.gridworld.world import GridworldError, RandomWalk, World, pose

__all__ = ["GridSample", "GridVideo"]

# Sums of C rounded probabilities stray from 1 by about C · 1e-16; priors computed in single precision by 1e-7.
_SUM_TOLERANCE = 1e-10


class GridSample(NamedTuple):
    """Sampled videos.

    Attributes:
        maps: the colour of every cell, (videos, cells).
        paths: poses, (videos, frames).
        frames: pictures in RGB, float64 in [0, 1] without noise, (videos, frames, size, size, 3).
    """

    maps: Tensor
    paths: Tensor
    frames: Tensor


class GridVideo:
    """A walker in a randomly coloured map.

    Args:
        world: the map's cells and passages.
        view: what a frame shows.
        colours: how many colours there are; taken from ``prior`` if that is given.
        prior: p, shape (colours,) for all cells or (cells, colours); uniform if left out.
        path: a :class:`RandomWalk`, or the poses of a given path, one a frame; it may stand still and turn. A
            random walk from cell 0 if left out.
        noise: standard deviation of the Gaussian observation noise on every pixel.

    Attributes:
        prior: p_c of every cell, float64, (cells, colours).
        palette: the colours' RGB values, (colours, 3).

    Raises:
        GridworldError: if the prior is none, or the path leaves the map or goes through a wall.

    Example:
        >>> from arvdm_theory.laws.gridworld.world import ring, tour
        >>> video = GridVideo(ring(5), colours=3, path=tour(ring(5), 7))
        >>> maps, paths, frames = video.sample(2, 7, torch.Generator().manual_seed(0))
        >>> bool((video.read(frames, paths)[:, 6, 1] == maps[:, 1]).all())  # after a round, cell 1 again
        True
    """

    def __init__(
        self,
        world: World,
        view: View | None = None,
        colours: int = 4,
        prior: ArrayLike | Tensor | None = None,
        path: RandomWalk | ArrayLike | None = None,
        noise: float = 0.0,
    ) -> None:
        self.world = world
        self.view = View() if view is None else view
        self.prior = _prior(world.cells, colours, prior)
        self.palette = _palette(self.colours)
        path = RandomWalk() if path is None else path
        self.path: RandomWalk | NDArray[np.int64] = path if isinstance(path, RandomWalk) else _path(world, path)
        if isinstance(self.path, RandomWalk) and not 0 <= self.path.start < world.cells:
            raise GridworldError(f"there is no cell {self.path.start} to start in, only 0 to {world.cells - 1}")
        if not (math.isfinite(noise) and noise >= 0):
            raise GridworldError(f"the observation noise must be finite and not negative, got {noise}")
        self.noise = noise

    @property
    def name(self) -> str:
        """The world's."""
        return self.world.name

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(size, size, 3)."""
        return (self.view.size, self.view.size, 3)

    @property
    def action_dim(self) -> int:
        """The number of cells, and 4 if headings are seen."""
        return self.world.cells + (4 if self.view.sees_heading else 0)

    def actions(self, paths: Tensor) -> Tensor:
        """Poses (.., frames) as the actions that lead to them, (.., frames, a).

        The walker's way is known and the colours are not: so the cell, one-hot, goes to the network as an action,
        and the heading too, one-hot behind it, if the view shows where the walker looks.
        """
        parts = [torch.nn.functional.one_hot(paths // 4, self.world.cells)]
        if self.view.sees_heading:
            parts.append(torch.nn.functional.one_hot(paths % 4, 4))
        return torch.cat(parts, -1).to(torch.float64)

    def draw(self, videos: int, frames: int, generator: torch.Generator) -> VideoBatch:
        """Videos with their poses as actions; see :class:`arvdm_theory.interfaces.VideoSource`."""
        sample = self.sample(videos, frames, generator)
        return VideoBatch(sample.frames.flatten(2), self.actions(sample.paths))

    @property
    def colours(self) -> int:
        """The number of colours."""
        return self.prior.shape[1]

    @cached_property
    def pixels(self) -> Tensor:
        """π: which cell each pixel shows, negative where it shows none, (poses, size, size)."""
        return torch.from_numpy(self.view.pixels(self.world))

    @cached_property
    def visible(self) -> NDArray[np.bool_]:
        """V: which cells a pose sees, (poses, cells)."""
        table = self.pixels.reshape(4 * self.world.cells, -1)
        return np.stack([(table == cell).any(-1).numpy() for cell in range(self.world.cells)], -1)

    @cached_property
    def transition(self) -> csr_array:
        """Transition probabilities of the random walk on poses, (poses, poses).

        Raises:
            GridworldError: if the path is given.
        """
        stay = self._random_walk().stay
        rows, columns, values = [], [], []
        for cell, neighbours in enumerate(self.world.neighbours):
            ways = [pose(other, heading) for heading, other in enumerate(neighbours) if other != -1]
            for origin in range(pose(cell), pose(cell) + 4):
                rows += [origin] * (len(ways) + 1)
                columns += [*ways, origin]
                values += [(1 - stay) / len(ways)] * len(ways) + [stay]
        return csr_array((values, (rows, columns)), shape=(4 * self.world.cells,) * 2)

    @property
    def start(self) -> int:
        """The random walk's first pose."""
        cell = self._random_walk().start
        return pose(cell, next(h for h, other in enumerate(self.world.neighbours[cell]) if other != -1))

    def sample_maps(self, videos: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent colourings, (videos, cells)."""
        return torch.multinomial(self.prior, videos, replacement=True, generator=generator).T.contiguous()

    @property
    def given_path(self) -> NDArray[np.int64] | None:
        """The poses of the path that every video follows, one a frame; None where each walks at random."""
        return None if isinstance(self.path, RandomWalk) else self.path

    def sample_paths(self, videos: int, frames: int, generator: torch.Generator | None = None) -> Tensor:
        """Paths, (videos, frames): the given one every time, or independent random walks."""
        if frames < 1:
            raise GridworldError(f"at least one frame is needed, got {frames}")
        if (path := self.given_path) is not None:
            if frames > len(path):
                raise GridworldError(f"{frames} frames are needed, but the path has {len(path)}")
            return torch.from_numpy(path[:frames].copy()).repeat(videos, 1)
        walk = self._random_walk()
        degree = torch.tensor([sum(n != -1 for n in row) for row in self.world.neighbours])
        ways = torch.tensor(
            [
                sorted((pose(n, h) if n != -1 else 4 * self.world.cells) for h, n in enumerate(row))
                for row in self.world.neighbours
            ]
        )
        paths = torch.full((videos, frames), self.start)
        for frame in range(1, frames):
            here = paths[:, frame - 1]
            draw = torch.rand(2, videos, dtype=torch.float64, generator=generator)
            way = (draw[0] * degree[here // 4]).long()
            paths[:, frame] = torch.where(draw[1] < walk.stay, here, ways[here // 4, way])
        return paths

    def sample(self, videos: int, frames: int, generator: torch.Generator | None = None) -> GridSample:
        """Independent videos of ``frames`` frames."""
        maps = self.sample_maps(videos, generator)
        paths = self.sample_paths(videos, frames, generator)
        pictures = self.render(maps, paths)
        if self.noise:
            pictures = pictures + self.noise * torch.randn(
                pictures.shape, dtype=pictures.dtype, generator=generator
            )
        return GridSample(maps, paths, pictures)

    def render(self, maps: Tensor, paths: Tensor) -> Tensor:
        """Noise-free pictures (.., frames, size, size, 3) of maps (.., cells) along paths (.., frames)."""
        if maps.shape[-1] != self.world.cells or int(maps.min()) < 0 or int(maps.max()) >= self.colours:
            raise GridworldError(f"a map has {self.world.cells} colours from 0 to {self.colours - 1}")
        greys = torch.tensor([GREYS[code] for code in sorted(GREYS)], dtype=torch.float64)
        # Negative codes index from the end, so the greys follow the cells in the order -3, -2, -1.
        paint = self.palette.to(maps.device)[maps]
        background = greys[:, None].expand(3, 3).to(maps.device).expand(*maps.shape[:-1], 3, 3)
        lookup = torch.cat([paint, background], -2)
        table = (self.pixels.to(maps.device) % lookup.shape[-2])[paths]
        shape = (*table.shape, 3)
        flat = table.flatten(len(maps.shape) - 1)[..., None].expand(*maps.shape[:-1], -1, 3)
        return lookup.gather(-2, flat).reshape(shape)

    def read(self, frames: Tensor, paths: Tensor) -> Tensor:
        """Colours of the visible cells, -1 for the others, (.., frames, cells): the inverse of :meth:`render`.

        A cell's colour is the palette's nearest to the mean of the cell's pixels, which with observation noise is
        the maximum-likelihood decoding.
        """
        table = self.pixels.to(frames.device)[paths].flatten(-2)
        owner = torch.where(table < 0, self.world.cells, table)[..., None]
        values = frames.flatten(-3, -2)
        sums = values.new_zeros(*table.shape[:-1], self.world.cells + 1, 4)
        counted = torch.cat([values, torch.ones_like(values[..., :1])], -1)
        sums.scatter_add_(-2, owner.expand(counted.shape), counted)
        total, count = sums[..., :-1, :3], sums[..., :-1, 3:]
        mean = total / torch.where(count > 0, count, 1)
        distance = (mean[..., None, :] - self.palette.to(values)).square().sum(-1)
        return torch.where(count[..., 0] > 0, distance.argmin(-1), -1)

    def _random_walk(self) -> RandomWalk:
        if not isinstance(self.path, RandomWalk):
            raise GridworldError("this video follows a given path; a RandomWalk is needed")
        return self.path


def _palette(colours: int) -> Tensor:
    """Equally spaced hues, none of them grey."""
    rgb = [colorsys.hsv_to_rgb(index / colours, 0.75, 0.95) for index in range(colours)]
    return torch.tensor(rgb, dtype=torch.float64)


def _prior(cells: int, colours: int, prior: ArrayLike | Tensor | None) -> Tensor:
    if prior is None:
        if colours < 2:
            raise GridworldError(f"a palette needs at least 2 colours, got {colours}")
        return torch.full((cells, colours), 1 / colours, dtype=torch.float64)
    values = torch.as_tensor(np.asarray(prior, dtype=np.float64))
    if values.ndim not in (1, 2) or values.shape[-1] < 2 or (values.ndim == 2 and len(values) != cells):
        raise GridworldError(
            f"a prior has shape (colours,) or ({cells}, colours), 2 colours at least; got {tuple(values.shape)}"
        )
    total = values.sum(-1)
    wrong = not bool(((values >= 0) & values.isfinite()).all())
    if wrong or float((total - 1).abs().max()) > _SUM_TOLERANCE:
        raise GridworldError(f"a prior's probabilities must be ≥ 0 and sum to 1, got sums of {total.tolist()}")
    return (values / total[..., None]).expand(cells, -1).contiguous()


def _path(world: World, path: ArrayLike) -> NDArray[np.int64]:
    poses = np.asarray(path)
    if poses.ndim != 1 or len(poses) == 0 or poses.dtype.kind not in "iu":
        raise GridworldError(f"a path is a list of poses, whole numbers; got {poses.dtype} of shape {poses.shape}")
    if poses.min() < 0 or poses.max() >= 4 * world.cells:
        raise GridworldError(f"poses run from 0 to {4 * world.cells - 1}, got {poses.min()} to {poses.max()}")
    cells = poses // 4
    for frame, (here, there) in enumerate(zip(cells[:-1].tolist(), cells[1:].tolist(), strict=True)):
        if here != there and there not in world.neighbours[here]:
            raise GridworldError(f"no passage leads from cell {here} (frame {frame}) to cell {there}")
    return poses.astype(np.int64)
