"""The answer of the receipts job as tables: one row a picture, what does not add up, the totals by category."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from orchestrator.models.job import JobResult

Row = Mapping[str, Any]


def answer(result: JobResult) -> Group:
    """The tables; what a picture did not yield is a dash, and what is not to be relied on has a question mark."""
    summary: Row = result.output or {}
    rows: Sequence[Row] = summary.get("rows") or ()
    parts: list[Table | Text] = [_pictures(rows, result.steps.get("merge") or [])]
    parts += [Text(line, style="yellow") for line in problem_lines(rows)]
    if summary.get("totals"):
        parts.append(_categories(summary["totals"]))
    return Group(*parts, Text(headline(summary), style="bold"))


def headline(summary: Row) -> str:
    """The summary in one line."""
    counts = [
        f"{summary.get('receipts', 0)} receipts in {summary.get('pictures', 0)} pictures",
        f"{summary.get('balanced', 0)} add up",
    ]
    for name, words in (
        ("unbalanced", "do not"),
        ("uncertain", "with an uncertain total"),
        ("not_receipts", "no receipt"),
        ("failed", "failed"),
    ):
        if summary.get(name):
            counts.append(f"{len(summary[name])} {words}")
    return " · ".join(counts)


def problem_lines(rows: Sequence[Row]) -> Iterator[str]:
    """What is wrong with which picture, one line a problem."""
    for row in rows:
        for problem in (*(row.get("problems") or ()), *(row.get("notes") or ())):
            yield f"{row['index'] + 1}  {name_of(row)}: {problem}"


def name_of(row: Row) -> str:
    """A picture's short name: the end of where it came from."""
    return str(row.get("source") or f"picture {row['index'] + 1}").rpartition("/")[2].removeprefix("bundled:")


def _pictures(rows: Sequence[Row], merged: Sequence[Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, right in (
        ("", 1),
        ("picture", 0),
        ("merchant", 0),
        ("date", 0),
        ("items", 1),
        ("tax", 1),
        ("total", 1),
        ("by category", 0),
    ):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    table.add_column("adds up")
    for row in rows:
        whole = merged[row["index"]] if row["index"] < len(merged) else None
        table.add_row(*map(Text, (*_cells(row), _by_category(whole or {}))), _verdict(row))  # print may look like markup
    return table


def _cells(row: Row) -> list[str]:
    doubtful = frozenset(row.get("uncertain") or ())
    told = {"items": str(row.get("items") or "–"), "tax": _money(row.get("tax")), "total": _money(row.get("total"))}
    told |= {name: row.get(name) or "–" for name in ("merchant", "date", "currency")}
    shown = {name: f"{text} ?" if name in doubtful and text != "–" else text for name, text in told.items()}
    total = shown["total"] if told["currency"] == "–" else f"{shown['total']} {shown['currency']}"
    return [str(row["index"] + 1), name_of(row), *(shown[n] for n in ("merchant", "date", "items", "tax")), total]


def _by_category(receipt: Row) -> str:
    return ", ".join(f"{c['category']} {_money(c['total'])}" for c in receipt.get("categories") or ()) or "–"


def _verdict(row: Row) -> Text:
    if row.get("state") in ("no receipt", "failed"):
        return Text(str(row["state"]), style="dim" if row["state"] == "no receipt" else "bold red")
    return Text("yes", style="green") if row.get("balanced") else Text("no", style="bold red")


def _categories(totals: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, right in (("currency", 0), ("category", 0), ("items", 1), ("total", 1)):
        table.add_column(name, justify="right" if right else "left")
    for total in totals:
        for category in total.get("categories") or ():
            cells = (total["currency"], category["category"], str(category["count"]), _money(category["total"]))
            table.add_row(*map(Text, cells))
        count = total["receipts"]
        table.add_row(
            total["currency"],
            f"printed total of {count} receipt{'s' if count != 1 else ''}",
            "",
            _money(total["total"]),
            style="bold",
        )
        table.add_section()
    return table


def _money(value: Any) -> str:
    return "–" if value is None else f"{value:,.2f}"
