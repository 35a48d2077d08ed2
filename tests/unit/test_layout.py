"""Boxes to lines: tilt, columns, and digits that were detected as one tall box."""

from __future__ import annotations

from math import cos, pi, radians, sin

from workers.ocr.layout import lines, page
from workers.ocr.pieces import Piece, Point


def cell(text: str, left: float, top: float, *, width: float = 100, height: float = 20, turn: float = 0.0) -> Piece:
    def at(x: float, y: float) -> Point:
        angle = radians(turn)
        return (x * cos(angle) - y * sin(angle), x * sin(angle) + y * cos(angle))

    corners = (at(left, top), at(left + width, top), at(left + width, top + height), at(left, top + height))
    return Piece(text, 0.9, corners)


PAGE = [("Milk", 0, 0), ("4.29", 400, 2), ("Bread", 0, 29), ("5.49", 400, 30), ("TOTAL", 0, 58), ("9.78", 400, 57)]


def told(turn: float) -> list[str]:
    return [line.text for line in lines([cell(t, x, y, turn=turn) for t, x, y in reversed(PAGE)])]


def test_cells_of_one_height_form_a_line_however_the_page_is_turned() -> None:
    for turn in (-8.0, -2.0, 0.0, 3.0, 8.0):
        assert told(turn) == ["Milk  4.29", "Bread  5.49", "TOTAL  9.78"], turn


def test_a_column_of_digits_goes_back_to_its_lines() -> None:
    names = [cell(n, 60, y) for n, y in (("Tea", 0), ("Cake", 30), ("Water", 60))]
    assert [line.text for line in lines([*names, cell("213", 0, 0, width=20, height=80)])] == ["2  Tea", "1  Cake", "3  Water"]


def test_what_lies_over_a_cell_is_another_line() -> None:
    assert [line.text for line in lines([cell("above", 0, 0), cell("below", 0, 9)])] == ["above", "below"]


def test_no_cells_no_lines() -> None:
    assert lines([]) == ()
    assert lines([cell("  ", 0, 0)]) == ()


def test_a_line_has_the_box_of_its_cells_and_their_mean_confidence() -> None:
    (line,) = lines([cell("ab", 10, 5), cell("cd", 200, 7)])
    assert line.box == (10, 5, 300, 27)
    assert line.confidence == 0.9


def bent(x: float, y: float) -> Point:
    """A point of a level page where it is on paper that curls more the further down it is, and leans."""
    return (x, y + (14 + 0.03 * y) * sin(x / 500 * pi * 0.9) + 0.03 * x)


def curled(text: str, left: float, top: float, *, width: float) -> Piece:
    corners = [bent(x, y) for x, y in ((left, top), (left + width, top), (left + width, top + 20), (left, top + 20))]
    return Piece(text, 0.9, tuple(corners))  # type: ignore[arg-type]


def test_amounts_join_their_rows_on_a_long_curled_page() -> None:
    rows = [(f"item number {n}", f"{n}.99") for n in range(40)]
    pieces = []
    for n, (name, amount) in enumerate(rows):
        pieces += [curled(name, 0, 29 * n, width=220), curled(amount, 440, 29 * n, width=60)]
    assert [line.text for line in lines(pieces)] == [f"{name}  {amount}" for name, amount in rows]


def test_a_line_tells_its_cells_page_and_place_on_the_levelled_page() -> None:
    told = page([cell("Milk", 0, 100, turn=5), cell("4.29", 400, 100, turn=5)], middle=(0.0, 0.0), number=2)
    (line,) = told.lines
    assert abs(told.skew - 5.0) < 0.2
    assert [(c.text, c.box) for c in line.cells] == [("Milk", (0, 100, 100, 120)), ("4.29", (400, 100, 500, 120))]
    assert (line.page, line.box, line.text) == (2, (0, 100, 500, 120), "Milk  4.29")
