"""One spelling for equal settings, and its hash: what makes two trials the same trial."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from phi_train.config import TrainConfig

__all__ = ["canonical_config", "digest"]

NOT_IN_IDENTITY = (
    *("data", "out", "seed", "workers", "keep"),
    *("guard", "guard_battery", "guard_heat", "guard_battery_heat", "guard_memory"),
)

USUAL = vars(TrainConfig(data="usual"))


def canonical_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what is learnt, without those at their defaults and the seed.

    So a default that is written out makes no other config, and neither does a setting that is
    added to phi-train later. Raises ConfigError for settings that make no sense.

    >>> canonical_config({"data": "x.txt", "steps": 2000, "batch_size": 8, "seed": 3})
    {'data': 'x.txt', 'batch_size': 8}
    """
    complete = vars(TrainConfig.from_dict(config))
    kept = {
        name: value
        for name, value in complete.items()
        if name not in NOT_IN_IDENTITY and value != USUAL[name]
    }
    return {"data": complete["data"], **kept}


def digest(value: Any) -> str:
    """A hash of plain values, 16 hexadecimal digits; dicts in any order.

    >>> digest({"a": 1, "b": 2.0}) == digest({"b": 2.0, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=8, person=b"phi-trial").hexdigest()
