"""Docstrings are written for ``help()``: what of them is not Markdown is made so, for the reference alone."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

_TABLE = re.compile(r"^=+(?:  +=+)+$")
_ROLE = re.compile(r":(?:mod|class|func|meth|attr|data|exc|obj):`~?(?:arvdm_theory\.)?([\w.]+)`")


class Docstrings(Extension):
    """Roles become code, tables and examples behind ``::`` blocks that keep their columns."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Griffe calls this for every object that it has read."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """The docstring with tables set in by four, roles as code and ``::`` as one colon."""
    lines, inside = [], 0
    for line in text.splitlines():
        rule = bool(_TABLE.match(line.strip()))
        inside = (inside + rule) % 3 if rule else inside
        lines.append("    " + line if rule or inside else line)
    return re.sub(r"::$", ":", _ROLE.sub(r"`\1`", "\n".join(lines)), flags=re.M)
