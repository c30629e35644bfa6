"""The plots: how a story begins, what may happen freely, the plot shapes, how a story ends.

A plot is a module with `OPENINGS`, lines which begin it (their `when` says in which worlds it can
begin), and `NODES`, what follows. To add one, write such a module and add it to `PLOTS`.
"""

from __future__ import annotations

from phi_train.stories.plots import (
    beginning,
    ending,
    fear,
    garden,
    gift,
    lesson,
    lost,
    quarrel,
    rescue,
    seek,
    sharing,
    trade,
    visit,
)
from phi_train.stories.plots.events import EVENTS
from phi_train.stories.template import Line

__all__ = ["EVENTS", "NODES", "PLOTS"]

PLOTS = (lost, quarrel, sharing, trade, rescue, visit, gift, lesson, fear, garden, seek)
"""The plot shapes."""

NODES: dict[str, list[Line]] = {
    **beginning.NODES,
    "middle": [item for plot in PLOTS for item in plot.OPENINGS],
    **{name: lines for plot in PLOTS for name, lines in plot.NODES.items()},
    **ending.NODES,
}
"""All nodes of the default grammar."""
