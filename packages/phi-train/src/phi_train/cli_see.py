"""The commands that look at runs and at the machine, added to phi-train in one call."""

from __future__ import annotations

import typer

__all__ = ["add_commands_to_see"]


def add_commands_to_see(app: typer.Typer) -> None:
    """Adds report, profile and status to `app`, as far as they are there."""
    del app
