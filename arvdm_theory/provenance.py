"""What a result must carry to be trusted: its config and seed, and the versions, commit and device behind it."""

from __future__ import annotations

import ast
import hashlib
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["provenance", "require_clean", "source_digest", "uncommitted", "versions"]

_DIRTY = "-dirty"


@cache
def versions() -> dict[str, str | None]:
    """Of Python, this library and what its numbers depend on; None for what is not installed as a package."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("arvdm-theory", "torch", "numpy", "scipy", "pandas"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


@cache
def _commit() -> str | None:
    """The commit of the source tree, marked ``-dirty`` if it was changed since; None outside a checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    # The package may lie, installed, inside another project's checkout.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--", str(here))
    return f"{commit}{_DIRTY}" if commit and changed else commit


def uncommitted(commit: str) -> bool:
    """Whether a provenance's commit is only what the source tree was changed from."""
    return commit.endswith(_DIRTY)


def require_clean() -> None:
    """Refuses to begin what is to be published from a source tree that no commit describes.

    Raises:
        ValueError: if the tree was changed since its last commit.
    """
    commit = _commit()
    if commit is not None and uncommitted(commit):
        raise ValueError(
            f"results come from a commit, but the source tree was changed since {commit[:8]}: commit first"
        )


def provenance(config: Mapping[str, Any], seed: int, device: str = "cpu") -> dict[str, Any]:
    """What a result must carry.

    Args:
        config: all that was asked for, as JSON values.
        seed: of every draw.
        device: the kind of device that computed it.
    """
    return {
        "config": dict(config),
        "seed": seed,
        "versions": versions(),
        "commit": _commit(),
        "device": f"{platform.machine()} {device}",
    }


# -- which source a result is of ----------------------------------------------------------------------

_PACKAGE = Path(__file__).parent


@cache
def source_digest(module: str) -> str:
    """A digest of the source that a module of this package runs: its own, and all that it imports of the package.

    Comments, docstrings and formatting do not count, nor does what is imported for type checkers alone. A module
    that is imported by a name made when the program runs counts if the name begins with the package's in a
    string; if it ends with a dot there, the whole subpackage does. Of other packages, the module alone counts.
    """
    found, left = set[str](), [module]
    while left:
        name = left.pop()
        if name not in found and (name == module or _file(name) is not None):
            found.add(name)
            left += _imports(name)
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name}\0{ast.dump(_code(name))}\0".encode())
    return digest.hexdigest()


def _file(module: str) -> Path | None:
    """The source of a module of this package."""
    parts = module.split(".")
    if parts[0] != _PACKAGE.name or not all(part.isidentifier() for part in parts):
        return None
    place = _PACKAGE.joinpath(*parts[1:])
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)


@cache
def _code(module: str) -> ast.Module:
    """What of a module's source is run: no docstrings, nothing below ``if TYPE_CHECKING``."""
    file = _file(module) or getattr(sys.modules.get(module), "__file__", None)
    source = b"" if file is None else Path(file).read_bytes()
    return _Run().visit(ast.parse(source))  # type: ignore[no-any-return]


class _Run(ast.NodeTransformer):
    """Takes out what is not run."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [self.visit(part) for part in node.orelse]
        return self.generic_visit(node)


def _imports(module: str) -> Iterator[str]:
    """What a module imports of this package, and the packages around it, which are imported with it."""
    parts = module.split(".")
    yield from (".".join(parts[:end]) for end in range(1, len(parts)))
    for node in ast.walk(_code(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)  # the name may be a module's
        elif isinstance(node, ast.Constant) and str(node.value).startswith(f"{_PACKAGE.name}."):
            name = str(node.value)
            yield name
            if name.endswith("."):
                folder = _PACKAGE.joinpath(*name.split(".")[1:-1])
                yield from (name + file.stem for file in folder.glob("*.py"))
