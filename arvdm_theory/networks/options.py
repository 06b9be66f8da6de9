"""An architecture's own options: a dataclass, filled from a config's mapping; its defaults say what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, Self

from arvdm_theory.networks.config import ModelError

__all__ = ["GridOptions", "Options", "TimeOptions", "option"]


def option(default: Any, *, least: int = 1, known: Sequence[str] = ()) -> Any:
    """A field that is checked further: whole numbers of at least ``least``, words out of ``known``."""
    return field(default=default, metadata={"least": least, "known": known})


@dataclass(frozen=True)
class Options:
    """Options by name; what a value may be, its default tells.

    ====================  ==========================
    default               value
    ====================  ==========================
    True or False         True or False
    a whole number        a whole number, 1 or more
    another number        a positive number
    a tuple               a list of whole numbers
    a word                a word out of a list
    ====================  ==========================
    """

    owner: ClassVar[str]

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """The defaults, overwritten by what is given.

        Raises:
            ModelError: naming the option that does not exist, or what its value should be.
        """
        if not isinstance(given, Mapping):
            raise ModelError(f"the options of {cls.owner} are a mapping, got {type(given).__name__}")
        known = {each.name: each for each in fields(cls)}
        unknown = sorted(str(name) for name in set(given) - set(known))
        if unknown:
            raise ModelError(f"{cls.owner} has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        for name, value in given.items():
            wanted = _wanted(known[name], value)
            if wanted:
                raise ModelError(f"{cls.owner}: {name} is {wanted}, got {value!r}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


@dataclass(frozen=True)
class TimeOptions(Options):
    """How a network sees time.

    Attributes:
        absolute: conditions the network on the frames' indices, for videos that are not stationary.
        horizon_frames: the unit of the indices, in frames.
    """

    absolute: bool = False
    horizon_frames: float = 64.0

    @property
    def horizon(self) -> float | None:
        """The unit of the indices that the network is conditioned on; None without them."""
        return self.horizon_frames if self.absolute else None


@dataclass(frozen=True)
class GridOptions(TimeOptions):
    """What all networks on grids of features have.

    Attributes:
        width: channels, a multiple of 4 x ``heads``.
        heads: of every attention layer.
        memory: see :class:`arvdm_theory.networks.memory.MemoryOptions`.
    """

    width: int = 128
    heads: int = 4
    memory: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.width % (4 * self.heads):
            raise ModelError(f"{self.owner}: width is a multiple of 4 x heads, got {self.width} and {self.heads}")


def _wanted(of: Field[Any], value: Any) -> str:
    """What the value should be, where it is not."""
    least, known = of.metadata.get("least", 1), of.metadata.get("known", ())
    rules = {
        bool: (type(value) is bool, "True or False"),
        int: (type(value) is int and value >= least, f"a whole number of at least {least}"),
        float: (type(value) in (int, float) and 0 < value < math.inf, "a positive number"),
        tuple: (
            type(value) in (list, tuple) and len(value) > 0 and all(type(x) is int and x >= 1 for x in value),
            "a list of whole numbers, each at least 1",
        ),
        str: (value in known, f"one of {', '.join(known)}"),
    }
    # A mapping has no rule: it is read by its own class.
    good, wanted = rules.get(type(of.default), (True, ""))
    return "" if good else wanted
