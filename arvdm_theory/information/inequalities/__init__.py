"""Linear information inequalities proved or refuted in exact arithmetic.

This is the door: what other packages need is named here, and all modules behind it are private to the package.
A name is loaded when it is first asked for, so that importing the package stays light.

Example:
    >>> from arvdm_theory.information.inequalities import prove
    >>> prove("H(X|Y) <= H(X)").holds
    True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arvdm_theory.information.inequalities.exact_law import Block, JointLaw
    from arvdm_theory.information.inequalities.expressions import ExpressionError, Statement, parse
    from arvdm_theory.information.inequalities.shannon import (
        Certificate,
        CertificateError,
        Counterexample,
        TooManyVariablesError,
        Verdict,
        prove,
    )

__all__ = [
    "Block",
    "Certificate",
    "CertificateError",
    "Counterexample",
    "ExpressionError",
    "JointLaw",
    "Statement",
    "TooManyVariablesError",
    "Verdict",
    "parse",
    "prove",
]

# Where each name lives.
_MODULES = {
    "exact_law": "Block JointLaw",
    "expressions": "ExpressionError Statement parse",
    "shannon": "Certificate CertificateError Counterexample TooManyVariablesError Verdict prove",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
