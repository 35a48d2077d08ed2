"""Boxes to lines: tilt, columns, and digits that were detected as one tall box."""

from __future__ import annotations

from math import cos, radians, sin

from workers.ocr.layout import Cell, Point, lines


def cell(text: str, left: float, top: float, *, width: float = 100, height: float = 20, turn: float = 0.0) -> Cell:
    def at(x: float, y: float) -> Point:
        angle = radians(turn)
        return (x * cos(angle) - y * sin(angle), x * sin(angle) + y * cos(angle))

    corners = (at(left, top), at(left + width, top), at(left + width, top + height), at(left, top + height))
    return Cell(text, 0.9, corners)


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
