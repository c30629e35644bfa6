"""The commands that look at runs and at the machine, added to phi-train in one call."""

from __future__ import annotations

import typer

from phi_train.cli_profile import profile
from phi_train.cli_report import report
from phi_train.cli_status import status

__all__ = ["add_commands_to_see"]


def add_commands_to_see(app: typer.Typer) -> None:
    """Adds report, profile and status to `app`."""
    app.command(name="report")(report)
    app.command(name="profile")(profile)
    app.command(name="status")(status)
