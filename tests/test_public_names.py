"""``import arvdm_theory``: the public names, loaded when they are asked for, and what the import leaves out."""

import ast
import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import arvdm_theory

ROOT = Path(arvdm_theory.__file__).parents[1]
HEAVY = ("torch", "scipy", "pandas", "matplotlib", "numpy")


def loaded_by(code: str, folder: Path) -> set[str]:
    """Which of the heavy packages a fresh interpreter has loaded after ``code``, run away from the checkout."""
    program = f"import sys\n{code}\nprint([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    root = str(Path(arvdm_theory.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=folder, timeout=120,
        env={"PYTHONPATH": root, "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *said, last = done.stderr.splitlines()
    assert not said, done.stderr
    return set(ast.literal_eval(last))


def test_the_import_leaves_heavy_packages_out(tmp_path: Path) -> None:
    assert loaded_by("import arvdm_theory; arvdm_theory.__version__, dir(arvdm_theory)", tmp_path) == set()
    # A probe that could not see them would show nothing here either.
    assert {"torch", "numpy"} <= loaded_by("from arvdm_theory import ledger", tmp_path)


@pytest.mark.parametrize("words", [["--help"], ["ledger", "--help"], ["plans", "--help"]])
def test_help_leaves_them_out_too(words: list[str], tmp_path: Path) -> None:
    code = (
        "from arvdm_theory.cli import main\n"
        f"try:\n    code = main({words!r})\nexcept SystemExit as stop:\n    code = stop.code\n"
        "assert code == 0, code"
    )
    assert loaded_by(code, tmp_path) & {"torch", "scipy", "pandas", "matplotlib"} == set()


def test_every_public_name_loads_and_is_what_its_module_says() -> None:
    names = arvdm_theory.__all__
    assert len(set(names)) == len(names)
    assert dir(arvdm_theory) == sorted(names)
    for module, own in arvdm_theory._HOMES.items():
        home = importlib.import_module(f"arvdm_theory.{module}")
        for name in own:
            assert getattr(arvdm_theory, name) is getattr(home, name)
            assert name in home.__all__, f"{module} does not export {name}"
    assert {name for own in arvdm_theory._HOMES.values() for name in own} | {"__version__"} == set(names)


def test_what_a_script_needs_is_there() -> None:
    wanted = {
        "Plan", "References", "PlanError", "ledger", "generate", "ExactScore", "PerturbedScore", "NetworkScore",
        "GaussianVideo", "ArrayVideo", "ar1", "reference_video", "FiniteStateVideo", "memory_bottleneck",
        "predicted_clip_kl", "measured_clip_kl", "memory_bottleneck_from_scores", "estimate_information",
        "check_lemma", "prove", "fit_video", "load_fitted", "METHODS", "method", "outpainting", "fifo",
    }  # fmt: skip
    assert wanted <= set(arvdm_theory.__all__)


def test_a_star_import_gives_all_of_them() -> None:
    space: dict[str, object] = {}
    exec("from arvdm_theory import *", space)
    assert set(arvdm_theory.__all__) <= set(space)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="module 'arvdm_theory' has no attribute 'leger'"):
        arvdm_theory.leger  # noqa: B018
    assert not hasattr(arvdm_theory, "_nothing")
    with pytest.raises(ImportError, match="cannot import name 'leger'"):
        exec("from arvdm_theory import leger")


def test_type_checkers_see_the_public_names() -> None:
    """Lazy names have no types of their own: a stub has them."""
    tool = runpy.run_path(str(ROOT / ".ci" / "stub"))
    stub = (ROOT / "arvdm_theory" / "__init__.pyi").read_text(encoding="utf-8")
    assert stub == tool["stub"](), "public names have changed: run python .ci/stub"
