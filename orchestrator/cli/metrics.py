"""The command `metrics`: what the platform did and cost, over all its processes."""

from __future__ import annotations

import typer

from orchestrator.cli.output import DONE, AsJson, print_json, register
from orchestrator.client.client import Client
from orchestrator.monitoring.report import print_metrics_report


def add_to(app: typer.Typer) -> None:
    """Registers the command."""

    @register(app, "metrics", examples="toolweaver metrics · toolweaver metrics --json")
    def metrics(as_json: AsJson = False) -> int:
        """Report tool calls, searches, tokens, cost and recent errors of the whole platform; needs the scope `admin`."""
        with Client() as client:
            report = client.access.metrics()
        if as_json:
            print_json(report)
        else:
            print_metrics_report(report)
        return DONE
