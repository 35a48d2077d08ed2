"""Good plans to start from, as plain data: each runs to its end with the tools of `lab`, and every step of it runs."""

from __future__ import annotations

from typing import Any


def step(id: str, tool: str, input: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"id": id, "tool": tool, "input": input, **rest}


def _line(text: str, top: int) -> dict[str, Any]:
    return {"text": text, "confidence": 0.98, "box": [10, top, 300, top + 20]}


_LINES = ["GREEN GROCER", "2024-05-03", "Apples 2.50", "Bread 3.20", "TOTAL 5.70"]
OCR = {"text": "\n".join(_LINES), "lines": [_line(t, 30 * n) for n, t in enumerate(_LINES)], "confidence": 0.98}
ITEMS = [{"description": "Tea", "amount": 3.5}, {"description": "Tea", "amount": 4.0}, {"description": "Batteries", "amount": 6.0}]

BASES: dict[str, dict[str, Any]] = {
    "prices": {
        "description": "Discounts amounts, then taxes what is left.",
        "inputs": {"amounts": [120.0, 15.5, 80.0], "percent": 10},
        "steps": [
            step("discount", "apply_discount", {"amount": "item", "percent": "input:percent"}, map="input:amounts"),
            step("tax", "compute_tax", {"amount": "item.total", "tax_rate": 0.19}, map="step:discount"),
            step("first", "grade", {"score": "step:tax[0].tax_rate"}),
        ],
        "output": "step:tax",
        "final_synthesis": {"prompt_template": "Passed: {{steps.first.passed}} of {{steps.tax[0].total}}"},
    },
    "receipt": {
        "inputs": {"scan": OCR},
        "steps": [
            step("parse", "line_item_parser", {"ocr": "input:scan"}),
            step("statistics", "compute_item_statistics", {"items": "step:parse.items"}, when={"ref": "step:parse.is_receipt"}),
            step("merged", "merge_items", {"items": "step:parse.items"}),
            step("whole", "merge_receipt", {"receipt": "step:parse", "statistics": "step:statistics"}),
            step("summary", "summarise_receipts", {"receipts": ["step:whole"]}),
            step("tax", "compute_tax", {"amount": "step:merged.total", "tax_rate": 0.07}),
            step("lines", "count", {"items": "step:merged.items"}, depends_on=["tax"]),
        ],
        "output": "step:summary",
        "final_synthesis": {"prompt_template": "{{steps}}"},
    },
    "people": {
        "inputs": {"names": ["ann", "bob", "carol"], "team": "ops"},
        "steps": [
            step("person", "find_person", {"name": "item", "team": "input:team"}, map="input:names"),
            step("mark", "grade", {"score": "item.level", "scale": "strict"}, map="step:person"),
            step(
                "told",
                "note",
                {"text": "item.email", "level": "info"},
                map="step:person",
                when={"ref": "item.email", "op": "exists"},
            ),
            step("tags", "join_texts", {"texts": "item.tags", "separator": "-"}, map="step:person"),
            step("all", "join_texts", {"texts": "step:tags"}),
            step("how_many", "count", {"items": "step:mark[*]"}, depends_on=["told"]),
        ],
        "output": "step:all",
        "final_synthesis": {"prompt_template": "{{steps.how_many}} marks: {{steps.mark}}"},
    },
    "shapes": {
        "inputs": {"sizes": [1.5, 2, 3]},
        "steps": [
            step("circle", "draw", {"kind": "circle", "size": "item"}, map="input:sizes"),
            step("round", "area", {"shape": "item.shape"}, map="step:circle"),
            step("fixed", "area", {"shape": {"kind": "square", "side": 4}}),
            step("pair", "sum_list", {"numbers": ["step:fixed.value", "step:round[1].value", 2.5]}),
            step(
                "label",
                "read_value",
                {"value": "step:circle[0].label", "parts": 3},
                when={"ref": "step:fixed.kind", "op": "eq", "value": "square"},
            ),
            step("spoken", "join_texts", {"texts": "step:label.parts", "separator": ", "}),
        ],
        "output": "step:pair",
        "final_synthesis": {"prompt_template": "{{steps.pair}} {{steps.spoken}}"},
    },
    "matrix": {
        "inputs": {"rows": 3},
        "steps": [
            step("made", "matrix", {"rows": "input:rows", "columns": 4}),
            step("total", "sum_matrix", {"cells": "step:made.cells"}),
            step("row", "sum_list", {"numbers": "item"}, map="step:made.cells"),
            step("again", "sum_list", {"numbers": "step:row[*]"}),
            step("corner", "grade", {"score": "step:made.cells[1][1]", "scale": "mild"}),
            step("rows", "read_value", {"value": "step:made.rows"}, when={"ref": "step:made.columns", "op": "gt", "value": 1}),
            step("kept", "note", {"text": "step:rows.text", "level": None}, depends_on=["total"]),
        ],
        "output": "step:again",
        "final_synthesis": {"prompt_template": "{{steps.total}} {{steps.corner.letter}} {{steps.kept.id}}"},
    },
    "money": {
        "inputs": {"amounts": [10, 20.5], "to": "USD"},
        "steps": [
            step("table", "rates", {"base": "EUR"}),
            step("price", "convert", {"amount": "item", "table": "step:table", "to": "input:to"}, map="input:amounts"),
            step("own", "convert", {"amount": "item.amount", "table": {"EUR": 1, "GBP": 2}, "to": "GBP"}, map="step:price"),
            step(
                "sale",
                "apply_discount",
                {"amount": "item.amount", "percent": 5},
                map="step:own",
                when={"ref": "item.currency", "op": "in", "value": ["GBP", "EUR"]},
                retry={"max": 1, "backoff_s": 0.1},
            ),
            step("back", "convert", {"amount": "item.total", "table": "step:table", "to": "EUR"}, map="step:sale"),
            step("how_many", "count", {"items": "step:back", "note": None}),
        ],
        "output": "step:back[1].amount",
        "final_synthesis": {"prompt_template": "{{steps.how_many}}"},
        "on_error": "skip_dependents",
    },
    "trees": {
        "inputs": {"name": "oak"},
        "steps": [
            step("grown", "tree", {"depth": 3, "name": "input:name"}),
            step("names", "tree_names", {"node": "step:grown"}),
            step("left", "tree_names", {"node": "step:grown.children[0]"}),
            step("each", "tree_names", {"node": "item"}, map="step:grown.children"),
            step("text", "join_texts", {"texts": "step:left", "separator": "/"}),
            step("word", "split_text", {"text": "step:text", "at": "/"}, timeout_s=30),
            step("letters", "read_value", {"value": "step:word[0]", "parts": 1}),
            step("by_hand", "tree_names", {"node": {"name": "step:letters.text", "children": [{"name": "leaf", "children": []}]}}),
        ],
        "output": "step:by_hand",
        "final_synthesis": {"prompt_template": "{{steps.names}} {{steps.each}}"},
    },
    "notes": {
        "inputs": {"who": "dora", "loud": True},
        "steps": [
            step("person", "find_person", {"name": "input:who", "team": "sales"}),
            step("where", "note", {"text": "step:person.address.street", "level": "warn"}, when={"ref": "input:loud"}),
            step("mail", "note", {"text": "step:person.email"}, when={"ref": "step:person.email", "op": "contains", "value": "@"}),
            step("mark", "grade", {"score": "step:person.level"}, depends_on=["where"], on_error="continue"),
            step(
                "summary",
                "join_texts",
                {"texts": ["step:person.name", "step:mark.letter", "step:person.address.zip", "done"]},
                when={"ref": "step:mark.passed", "op": "falsy"},
                on_skip="run",
            ),
            step("parts", "split_text", {"text": "step:summary", "at": " "}),
            step("one", "read_value", {"value": 7}, map="step:parts", effect="idempotent"),
            step("sum", "count", {"items": "step:one"}),
        ],
        "output": "step:sum",
        "final_synthesis": {"prompt_template": "{{steps.mail.id}}"},
    },
    "words": {
        "inputs": {"text": "one,two,three", "options": {"at": ",", "limits": [4, 5]}},
        "steps": [
            step("words", "split_text", {"text": "input:text", "at": "input:options.at"}),
            step("each", "read_value", {"value": "item", "parts": 2}, map="step:words"),
            step("twice", "join_texts", {"texts": ["item.text", "item.parts[0]"], "separator": "+"}, map="step:each"),
            step("line", "join_texts", {"texts": "step:twice", "separator": {"$literal": "; "}}),
            step("number", "read_value", {"value": "input:options.limits[1]"}),
            step("length", "grade", {"score": "step:number.number"}, when={"ref": "step:number.number", "op": "ge", "value": 2}),
            step("stored", "note", {"text": "step:line"}, depends_on=["length"]),
        ],
        "output": "step:stored.stored",
        "final_synthesis": {"prompt_template": "{{steps.line}} {{steps.length.score}}"},
    },
    "basket": {
        "inputs": {"items": ITEMS, "rate": 0.2},
        "steps": [
            step("merged", "merge_items", {"items": "input:items"}),
            step("figures", "compute_item_statistics", {"items": "step:merged.items"}),
            step(
                "tax",
                "compute_tax",
                {"amount": "step:figures.average", "tax_rate": "input:rate"},
                when={"ref": "step:figures.average"},
            ),
            step("sale", "apply_discount", {"amount": "step:tax.total", "percent": 12.5}),
            step("names", "read_value", {"value": "item.description"}, map="step:merged.items"),
            step("list", "join_texts", {"texts": ["step:names[0].text", "and", "step:names[1].text"]}),
            step("sum", "sum_list", {"numbers": ["step:sale.total", "step:tax.tax", 1]}),
        ],
        "output": "step:sum",
        "final_synthesis": {"prompt_template": "{{steps.list}} cost {{steps.sum}}"},
    },
}
