"""RapidOCR, one warm engine per process: finds the text at a bounded scale, reads it at full resolution.

The library's own call reduces a page to 2,000 pixels before it cuts the lines out, and drops what it is not sure of.
Here its stages are called one by one, so that a long scan is searched in overlapping strips, lines are cut from the
whole picture, weak ones stay with their low confidence, and the deadline is looked at before each run of a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rapidocr import RapidOCR
from rapidocr.inference_engine.onnxruntime.main import ONNXRuntimeError

from orchestrator.settings import Settings
from workers.ocr.languages import OTHER_SCRIPTS, PACKS, plain
from workers.ocr.pieces import Deadline, Engine, Orientation, Picture, Piece, Reading, Unable, as_corners, turn
from workers.ocr.tilt import tilt_of

THREADS = 1  # a process's share: the pool has one process per core or so
SHORT, WIDEST, STRIP, OVERLAP = 736, 1_250, 2_000, 160  # pixels of the picture in which text is searched
SMALLEST, ENLARGED = 32, 3.0  # pixels: the detector cannot take less; nothing is enlarged further
SLIM = 8  # times as long as wide: what is slimmer is searched with white beside it, as the detector enlarges the short side
LARGEST = 40_000_000  # pixels to which nothing is enlarged
SAMPLE = 24  # lines that tell whether a page is upside down
NO, YES, DOUBTED = 0.25, 0.9, 6  # shares of them that settle it; else so many are read both ways
LOW = 18.0  # pixels: lines less high than this are enlarged by half the way to the network's 48
DOUBLED = 20_000_000  # pixels of a page that is enlarged for that, at most: it takes 24 bytes for each
TOGETHER = 8  # lines between two looks at the deadline
WEAK = 0.96  # lines of less confidence are read a second time
LEAST = 0.3  # lines of less confidence are dirt, not text
SHORT_TEXT, SURE = 2, 0.5  # and so short ones of less than this
FEW, TALL = 6, 1.6  # boxes that show how high a line is; heights of a line from which a box holds several
LOST_SPACE, NEXT_COLUMN = 6, 14  # in sixths of a line's height, from one character's place to the next

Boxes = NDArray[Any]
"""Boxes x 4 corners x (x, y)."""


@lru_cache(maxsize=1)
def engine() -> Any:
    """The warm engine; its models ship with `rapidocr`. Call it first after a fork: its threads do not survive one."""
    made = RapidOCR(
        params={
            "EngineConfig.onnxruntime.intra_op_num_threads": THREADS,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Global.log_level": "error",
            "Global.return_word_box": True,  # the places of characters, which tell lost spaces and columns
            "Rec.rec_batch_num": 2,  # the default of 6 takes some 60 MB more and no less time here
        }
    )
    blank = np.full((64, 256, 3), 255, np.uint8)
    made(cv2.putText(blank, "warm", (8, 44), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (0, 0, 0), 2))  # loads all three networks
    return made


@dataclass(frozen=True, slots=True)
class Rapid:
    """RapidOCR with the models of its wheel: Latin script and Chinese, whatever the language asked for."""

    name: str = "rapidocr"
    local: bool = True

    def read(self, picture: Picture, *, language: str, orientation: Orientation, deadline: Deadline) -> Reading:
        """See `Engine.read`."""
        if plain(language) in OTHER_SCRIPTS:
            raise Unable(
                f"its characters cannot write the language `{language}`",
                next=f"Install Tesseract's pack `{PACKS[plain(language)]}`, or name another engine.",
            )
        given = 0 if orientation == "auto" else int(orientation)
        picture = turn(picture, given)
        try:
            boxes, turned = find(picture, deadline), 0
            if orientation == "auto" and _lies(boxes):
                aside = turn(picture, 90)
                other = find(aside, deadline)
                if _best(aside, other, deadline) > _best(picture, boxes, deadline):  # print of dots is found in tall pieces
                    picture, boxes, turned = aside, other, 90
            if orientation == "auto" and _upside_down(picture, boxes, deadline):
                picture, turned = turn(picture, 180), turned + 180
                boxes = find(picture, deadline)
            return Reading(recognise(picture, rows_of(boxes), deadline), picture, (given + turned) % 360)
        except _library_errors() as error:
            raise Unable(f"failed: {type(error).__name__}{_last_line(error)}", retryable=True) from error


def _library_errors() -> tuple[type[Exception], ...]:
    return (ONNXRuntimeError, RuntimeError, ValueError, TypeError, IndexError, cv2.error, MemoryError)


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()  # of a MemoryError there are none, of the network's own a whole traceback
    return f": {lines[-1][:200]}" if lines else ""


def find(picture: Picture, deadline: Deadline) -> Boxes:
    """The boxes of the lines of text."""
    picture, scale = _to_search(picture)
    found = [_in_strip(picture, top, bottom, deadline) for top, bottom in strips(picture)]
    boxes = np.concatenate([f for f in found if len(f)]) if any(len(f) for f in found) else np.empty((0, 4, 2), np.float32)
    return _without_twins(boxes) / np.float32(scale)


def strips(picture: Picture) -> list[tuple[int, int]]:
    """Top and bottom of the strips in which a page is searched: one for all but long ones."""
    height, width = picture.shape[:2]
    if height <= STRIP * 1.1 or height <= width:
        return [(0, height)]
    count = -(-(height - OVERLAP) // (STRIP - OVERLAP))
    step = (height - OVERLAP) / count
    return [(round(n * step), min(height, round((n + 1) * step) + OVERLAP)) for n in range(count)]


def _to_search(picture: Picture) -> tuple[Picture, float]:
    """The picture at the scale in which text is searched, and that scale."""
    height, width = picture.shape[:2]
    short, long = max(min(height, width), width // SLIM), max(height, width)
    if short < SHORT:
        scale = min(SHORT / short, ENLARGED, max(1.0, (LARGEST / (height * width)) ** 0.5))
    elif height > STRIP / WIDEST * width:
        scale = min(1.0, WIDEST / short)
    else:
        scale = min(1.0, max(STRIP / long, SHORT / short))
    size = (max(SMALLEST, round(width * scale)), max(SMALLEST, round(height * scale)))
    if size == (width, height):
        return picture, scale
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), scale


def _in_strip(picture: Picture, top: int, bottom: int, deadline: Deadline) -> Boxes:
    """The boxes of one strip; those that its cut edges halve are left to its neighbours, which see them whole."""
    deadline.check()
    found = engine().text_det(_not_slim(np.ascontiguousarray(picture[top:bottom, :, ::-1])))
    if found.boxes is None or not len(found.boxes):
        return np.empty((0, 4, 2), np.float32)
    boxes: Boxes = np.clip(found.boxes, 0, (picture.shape[1], bottom - top)).astype(np.float32)
    boxes[:, :, 1] += top
    low, high = boxes[:, :, 1].min(axis=1), boxes[:, :, 1].max(axis=1)
    whole: NDArray[Any] = ((low > top + 3) | (top == 0)) & ((high < bottom - 4) | (bottom == len(picture)))
    kept: Boxes = boxes[whole]
    return kept


def _not_slim(strip: Picture) -> Picture:
    height, width = strip.shape[:2]
    low, narrow = max(0, width // SLIM - height), max(0, height // SLIM - width)
    return cv2.copyMakeBorder(strip, 0, low, 0, narrow, cv2.BORDER_CONSTANT, value=(255, 255, 255)) if low or narrow else strip


def _without_twins(boxes: Boxes) -> Boxes:
    """Without the second of two boxes that two strips found of one line."""
    middles, heights = boxes.mean(axis=1), np.linalg.norm(boxes[:, 3] - boxes[:, 0], axis=1)
    kept: list[int] = []
    for n in np.argsort(middles[:, 1], kind="stable"):
        near = [k for k in kept[-40:] if abs(middles[k, 1] - middles[n, 1]) < 0.3 * heights[n]]
        if not any(_covers(boxes[k], boxes[n]) for k in near):
            kept.append(int(n))
    return boxes[kept]


def _covers(one: Boxes, other: Boxes) -> bool:
    """Whether they share most of the narrower one's width."""
    left, right = max(one[:, 0].min(), other[:, 0].min()), min(one[:, 0].max(), other[:, 0].max())
    return bool(right - left > 0.6 * min(np.ptp(one[:, 0]), np.ptp(other[:, 0])))


def _lies(boxes: Boxes) -> bool:
    """Whether the page lies on its side: its lines run up and down. Of a line that leans, any corner may come first."""
    if not len(boxes):
        return False
    along, down = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 0]
    widths, heights = np.linalg.norm(along, axis=1), np.linalg.norm(down, axis=1)
    longer = np.where((widths > heights)[:, None], along, down)
    telling = np.maximum(widths, heights) > 1.5 * np.minimum(widths, heights)
    steep = np.abs(longer[:, 1]) > np.abs(longer[:, 0])
    lengths = np.maximum(widths, heights)
    return bool(lengths[telling & steep].sum() > lengths[telling & ~steep].sum())


def _best(picture: Picture, boxes: Boxes, deadline: Deadline) -> float:
    """How surely the longest lines that run across are read, either way up."""
    if not len(boxes):
        return 0.0
    along, down = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 0]
    widths = np.linalg.norm(along, axis=1)
    across = (widths > np.linalg.norm(down, axis=1)) & (np.abs(along[:, 0]) > np.abs(along[:, 1]))
    longest = np.argsort(-np.where(across, widths, 0), kind="stable")[: min(DOUBTED, int(across.sum()))]
    lines = crops(picture, boxes[longest]) if len(longest) else []
    return float(max(_sureness(lines, deadline), _sureness([cv2.rotate(c, cv2.ROTATE_180) for c in lines], deadline)))


def _upside_down(picture: Picture, boxes: Boxes, deadline: Deadline) -> bool:
    """Whether most of the longest lines stand on their heads, by the line classifier."""
    if not len(boxes):
        return False
    widths = np.linalg.norm(boxes[:, 1] - boxes[:, 0], axis=1)
    longest = np.argsort(-widths, kind="stable")[:SAMPLE]
    deadline.check()
    lines = crops(picture, boxes[longest])
    told = engine().text_cls(lines).cls_res or ()
    share = sum(label == "180" for label, _ in told) / max(1, len(told))
    if NO < share < YES:  # print of dots deceives the classifier: the better reading decides
        few = lines[:DOUBTED]
        return bool(_sureness([cv2.rotate(c, cv2.ROTATE_180) for c in few], deadline) > _sureness(few, deadline))
    return bool(share >= YES)


def _sureness(cut: Sequence[NDArray[Any]], deadline: Deadline) -> float:
    return sum(line.score * len(line.text) for line in _recognise(cut, deadline))


def crops(picture: Picture, boxes: Boxes) -> list[NDArray[Any]]:
    """The lines cut out of the picture and straightened, as BGR."""
    picture, times = _with_larger_letters(picture, boxes)
    cut: list[NDArray[Any]] = engine().crop_text_regions(np.ascontiguousarray(picture[:, :, ::-1]), boxes * np.float32(times))
    return [c if c.size else np.zeros((8, 8, 3), np.uint8) for c in cut]


def _with_larger_letters(picture: Picture, boxes: Boxes) -> tuple[Picture, float]:
    """The picture, enlarged by a finer rule than the network's own when its lines are low; and by how much."""
    heights = np.minimum(np.linalg.norm(boxes[:, 3] - boxes[:, 0], axis=1), np.linalg.norm(boxes[:, 1] - boxes[:, 0], axis=1))
    if not len(boxes) or float(np.median(heights)) >= LOW or picture.size > 3 * DOUBLED:
        return picture, 1.0
    return cv2.resize(picture, None, fx=2.0, fy=2.0, interpolation=cv2.INTER_CUBIC), 2.0


def rows_of(boxes: Boxes) -> Boxes:
    """The boxes, a column of digits that was found as one tall box cut where the lines beside it are."""
    if len(boxes) < FEW:
        return boxes
    slope = np.tan(np.radians(tilt_of(boxes)))
    widths = np.linalg.norm(boxes[:, 1] - boxes[:, 0], axis=1)
    heights = np.linalg.norm(boxes[:, 3] - boxes[:, 0], axis=1)
    usual = float(np.median(heights[widths > heights])) if (widths > heights).any() else 0.0
    tall = (heights > TALL * usual) & (widths < TALL * usual) & (usual > 0)
    middles = boxes.mean(axis=1)
    cut = [c for n in np.flatnonzero(tall) for c in _cut(boxes[n], middles[~tall], usual, float(slope))]
    return np.concatenate([boxes[~tall], np.array(cut, np.float32).reshape(-1, 4, 2)])


def _cut(box: Boxes, middles: Boxes, usual: float, slope: float) -> list[Boxes]:
    x, top, bottom = float(box[:, 0].mean()), float(box[:, 1].min()), float(box[:, 1].max())
    half = max(float(np.ptp(box[:, 0])), 0.8 * usual) / 2  # wider than slim, or it would be taken for a lying line
    rows: list[float] = []
    for y in sorted(middles[:, 1] + (x - middles[:, 0]) * slope):
        if top + 0.2 * usual < y < bottom - 0.2 * usual and (not rows or y - rows[-1] > 0.6 * usual):
            rows.append(float(y))
    if len(rows) < 2:
        return [box]
    up = 0.5 * usual
    return [np.array([[x - half, y - up], [x + half, y - up], [x + half, y + up], [x - half, y + up]], np.float32) for y in rows]


@dataclass(frozen=True, slots=True)
class Line:
    """What the network read in a box."""

    text: str
    score: float
    places: Any


def recognise(picture: Picture, boxes: Boxes, deadline: Deadline) -> list[Piece]:
    """The text in the boxes; those read with little certainty are read again with their grain smoothed, the surer stays."""
    told = _recognise(crops(picture, boxes), deadline)
    weak = [n for n, line in enumerate(told) if line.score < WEAK]
    if weak:
        again = _recognise([cv2.GaussianBlur(c, (3, 3), 0) for c in crops(picture, boxes[weak])], deadline)
        for n, line in zip(weak, again, strict=True):
            told[n] = max(told[n], line, key=lambda t: t.score)
    return [piece for line, box in zip(told, boxes, strict=True) for piece in _pieces(line, box)]


def _recognise(cut: Sequence[NDArray[Any]], deadline: Deadline) -> list[Line]:
    """What is in each picture of a line; those of one length are read together."""
    order = sorted(range(len(cut)), key=lambda n: cut[n].shape[1] / cut[n].shape[0])
    told: dict[int, Line] = {}
    for some in (order[n : n + TOGETHER] for n in range(0, len(order), TOGETHER)):
        deadline.check()
        read = engine().recognize_txt([cut[n] for n in some])
        told |= {n: Line(*t) for n, *t in zip(some, read.txts, map(float, read.scores), read.word_results, strict=True)}
    return [told[n] for n in range(len(cut))]


def _pieces(line: Line, box: Boxes) -> Iterator[Piece]:
    """A box's text, with the spaces that were lost, cut where a gap is that of two columns."""
    text, score, places = line.text, line.score, line.places
    if score < (SURE if len(text.strip()) <= SHORT_TEXT else LEAST) or not text.strip():
        return
    runs = spread(text, [c for word in places.word_cols for c in word], columns=places.line_txt_len)
    for run, left, right in runs:
        top, bottom = box[0] + (box[1] - box[0]) * left, box[3] + (box[2] - box[3]) * left
        top_right, bottom_right = box[0] + (box[1] - box[0]) * right, box[3] + (box[2] - box[3]) * right
        yield Piece(run, score, as_corners((top, top_right, bottom_right, bottom)))


def spread(text: str, places: Sequence[int], *, columns: float) -> list[tuple[str, float, float]]:
    """The text in runs that stand apart, each with its left and right end as shares of the box's width.

    `places` are the columns, of `columns` in all, at which the characters but for spaces stand; six columns are as wide
    as the line is high. A wide gap without a space gets one; a much wider one ends a run.
    """
    text = " ".join(text.split())
    if len(places) != len(text.replace(" ", "")) or columns <= 0:
        return [(text, 0.0, 1.0)]
    steps = np.diff(places)
    usual = float(np.median(steps)) if len(steps) else 0.0
    lost, apart = max(LOST_SPACE, 2.0 * usual), max(NEXT_COLUMN, 4.0 * usual)
    runs, run, begin, at = [], "", 0.0, 0
    for before, character in zip(" " + text, text, strict=False):
        if character == " ":
            continue
        step = places[at] - places[at - 1] if at else 0
        if run and step >= apart:
            middle = (places[at] + places[at - 1]) / 2 / columns
            runs.append((run, begin, middle - 0.25 * step / columns))
            run, begin = "", middle + 0.25 * step / columns
        elif run and (before == " " or (step >= lost and character != run[-1])):
            run += " "
        run += character
        at += 1
    return [*runs, (run, begin, 1.0)]


def engine_for(_: Settings) -> Engine:
    """The engine as the settings want it."""
    return Rapid()
