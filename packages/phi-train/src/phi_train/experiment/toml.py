"""Plain values as TOML, which Python reads and does not write.

>>> print("\\n".join(toml_table("base", {"rate": 0.001, "model": {"n_layer": 4}})))
[base]
rate = 0.001
[base.model]
n_layer = 4
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["toml_table", "toml_value"]


def toml_table(name: str, values: Mapping[str, Any]) -> list[str]:
    """The lines of a table, tables within it after its own values."""
    plain = {k: v for k, v in values.items() if not isinstance(v, Mapping)}
    lines = [f"[{name}]", *(f"{_key(k)} = {toml_value(v)}" for k, v in plain.items())]
    for key, table in values.items():
        if isinstance(table, Mapping):
            lines += toml_table(f"{name}.{_key(key)}", table)
    return lines


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)


def toml_value(value: Any) -> str:
    """A literal: JSON's strings, numbers, booleans and lists are TOML's, but for infinity."""
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
