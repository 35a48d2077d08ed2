"""What happens to a receipt between the register and the file: print, paper, pocket, scanner or camera."""

from __future__ import annotations

import random
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tests.receipts.fonts import HANDS, load

Array = NDArray[np.float32]  # height x width x 3, red green blue, 0 to 1

CLASSES = ("clean", "skewed", "noisy", "low-resolution", "blurred", "folded", "perspective", "foreign")
PAPERS = ((1.0, 1.0, 1.0), (0.98, 0.97, 0.95), (0.97, 0.95, 0.9), (0.95, 0.96, 0.98), (0.99, 0.97, 0.93), (0.97, 0.93, 0.93))


def _noise(rng: random.Random, height: int, width: int, coarse: int) -> Array:
    """Smooth noise in 0..1: random values on a coarse grid, spread between."""
    draw = np.random.default_rng(rng.getrandbits(32))
    grid = draw.random((height // coarse + 2, width // coarse + 2), dtype=np.float32)
    return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32).clip(0, 1)


def _grain(rng: random.Random, shape: tuple[int, ...], deviation: float) -> Array:
    return np.random.default_rng(rng.getrandbits(32)).normal(0, deviation, shape).astype(np.float32)


def printed(mask: Image.Image, ink: tuple[int, int, int], rng: random.Random, *, dots: bool, fresh: bool = True) -> Array:
    """Ink on paper: even from a laser, uneven from a thermal head, in dots from a needle printer."""
    cover = np.asarray(mask, dtype=np.float32) / 255
    height, width = cover.shape
    if dots:
        y, x = np.mgrid[0:height, 0:width]
        lattice = 0.5 + 0.5 * np.cos(y * (2 * np.pi / 3)) * np.cos(x * (2 * np.pi / 3))
        cover = cv2.GaussianBlur(cover * (0.35 + 0.65 * lattice.astype(np.float32)), (0, 0), 0.7)
    strength = 1 - (0.12 if fresh else 0.3) * _noise(rng, height, width, 7)
    darkness = rng.uniform(0.82, 1.0)
    cover = (cover * strength * darkness)[:, :, None]
    paper = np.array(rng.choice(PAPERS), dtype=np.float32)
    colour = np.array(ink, dtype=np.float32) / 255
    sheet = paper * (0.985 + 0.03 * _noise(rng, height, width, 90)[:, :, None])
    return np.asarray((sheet * (1 - cover) + colour * cover), dtype=np.float32).clip(0, 1)


# -- damage


def faded(page: Array, rng: random.Random) -> Array:
    """Thermal print that has paled in patches, or from one edge."""
    height, width = page.shape[:2]
    patches = _noise(rng, height, width, max(60, min(height, width) // 3))
    slope = np.linspace(0, 1, width if rng.random() < 0.5 else height, dtype=np.float32)
    slope = slope[None, :] if len(slope) == width else slope[:, None]
    amount = (rng.uniform(0.25, 0.5) * patches + rng.uniform(0.05, 0.3) * slope)[:, :, None]
    white = page.max(axis=(0, 1))
    return page + (white - page) * amount.clip(0, 0.68)


def streaked(page: Array, rng: random.Random) -> Array:
    """Lines along the paper where a dot of the head is dead or dirty."""
    out = page.copy()
    for _ in range(rng.randrange(1, 4)):
        x = rng.randrange(page.shape[1] - 3)
        if rng.random() < 0.5:
            out[:, x : x + rng.randrange(1, 3)] = out[:, x : x + 2].max(axis=(0, 1))
        else:
            out[:, x : x + 1] *= rng.uniform(0.4, 0.8)
    return out


def speckled(page: Array, rng: random.Random) -> Array:
    """Dust: dark and light grains of one to a few pixels, and grain of the sensor."""
    height, width = page.shape[:2]
    out = page + _grain(rng, page.shape[:2], rng.uniform(0.01, 0.06))[:, :, None]
    draw = np.random.default_rng(rng.getrandbits(32))
    many = int(height * width * rng.uniform(0.0004, 0.006))
    ys, xs = draw.integers(0, height - 2, many), draw.integers(0, width - 2, many)
    shade = draw.uniform(0, 1, many).astype(np.float32)[:, None]
    out[ys, xs] = np.where(shade < 0.6, shade * 0.7, 1)
    out[ys, xs + (shade[:, 0] < 0.3)] = np.where(shade < 0.6, shade * 0.7, 1)
    return out.clip(0, 1)


def uneven(page: Array, rng: random.Random, deep: float = 0.5) -> Array:
    """Light from one side, and a soft shadow across."""
    height, width = page.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    run = (np.cos(angle) * x / width + np.sin(angle) * y / height).astype(np.float32)
    run = (run - run.min()) / max(1e-6, float(np.ptp(run)))
    light = 1 - deep * rng.uniform(0.4, 1) * run
    if rng.random() < 0.5:
        light = light * (1 - 0.3 / (1 + np.exp(-(run - rng.uniform(0.3, 0.7)) * rng.uniform(15, 60))))
    return page * light[:, :, None].astype(np.float32)


def stamped(page: Array, rng: random.Random) -> Array:
    """A rubber stamp, aslant over the print; the print shows through."""
    size = rng.randrange(150, 260)
    stamp = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(stamp)
    text = rng.choice(("PAID", "RECEIVED", "CHOP", "CHECKED", "COPY", "OK"))
    font = load("LiberationSans-Bold.ttf", size // 6)
    if rng.random() < 0.5:
        pen.ellipse([6, size * 0.22, size - 6, size * 0.78], outline=255, width=4)
    else:
        pen.rounded_rectangle([6, size * 0.34, size - 6, size * 0.66], 8, outline=255, width=4)
    pen.text((size / 2, size / 2), text, fill=255, font=font, anchor="mm")
    stamp = stamp.rotate(rng.uniform(-35, 35), Image.Resampling.BICUBIC)
    cover = np.asarray(stamp, dtype=np.float32) / 255 * (0.35 + 0.5 * _noise(rng, size, size, 6))
    colour = np.array(rng.choice(((0.15, 0.2, 0.65), (0.75, 0.1, 0.15), (0.35, 0.15, 0.5))), dtype=np.float32)
    return _laid(page, cover, colour, rng)


def handwritten(page: Array, rng: random.Random) -> Array:
    """A note in ballpoint, ticks, or a stroke across the print."""
    height, width = page.shape[:2]
    layer = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(layer)
    for _ in range(rng.randrange(1, 4)):
        x, y = rng.randrange(0, max(1, width - 120)), rng.randrange(20, max(21, height - 60))
        if rng.random() < 0.5:
            note = rng.choice(("lunch", "John", "parking 2x", "ok", "Mr Lee", "office", "#12", "claim", "J. Wong"))
            word = Image.new("L", (320, 110), 0)
            ImageDraw.Draw(word).text((10, 20), note, fill=255, font=load(rng.choice(HANDS), rng.randrange(34, 60)), stroke_width=1)
            turned = word.rotate(rng.uniform(-14, 14), Image.Resampling.BICUBIC)
            layer.paste(255, (x - 20, y - 30), turned)
        else:
            _stroke(pen, rng, x, y, rng.randrange(60, max(61, width // 2)))
    cover = np.asarray(layer, dtype=np.float32) / 255 * rng.uniform(0.6, 0.95)
    colour = np.array(rng.choice(((0.1, 0.15, 0.55), (0.12, 0.12, 0.14), (0.7, 0.1, 0.12))), dtype=np.float32)
    return page * (1 - cover[:, :, None]) + page * colour * cover[:, :, None]


def _stroke(pen: ImageDraw.ImageDraw, rng: random.Random, x: int, y: int, long: int) -> None:
    """A wavy line of a pen."""
    high, waves = rng.uniform(3, 26), rng.uniform(0.5, 5)
    points = [(x + long * t / 40, y + high * np.sin(waves * t / 6) + rng.uniform(-1, 1)) for t in range(41)]
    pen.line(points, fill=255, width=rng.choice((2, 2, 3, 4)), joint="curve")


def _laid(page: Array, cover: Array, colour: Array, rng: random.Random) -> Array:
    """A patch of colour somewhere on the page."""
    height, width = min(cover.shape[0], page.shape[0]), min(cover.shape[1], page.shape[1])
    y, x = rng.randrange(page.shape[0] - height + 1), rng.randrange(page.shape[1] - width + 1)
    out, part = page.copy(), cover[:height, :width, None]
    out[y : y + height, x : x + width] *= 1 - part * (1 - colour)
    return out


def stained(page: Array, rng: random.Random) -> Array:
    """A ring of coffee."""
    height, width = page.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    radius = rng.uniform(70, 150)
    far = np.hypot(x - rng.uniform(0, width), y - rng.uniform(0, height)) + 8 * _noise(rng, height, width, 40)
    ring = np.exp(-(((far - radius) / rng.uniform(4, 9)) ** 2)) + 0.3 * (far < radius)
    return page * (1 - 0.35 * ring[:, :, None] * np.array((0.3, 0.6, 1.0), dtype=np.float32)).astype(np.float32)


def spread(page: Array, rng: random.Random) -> Array:
    """Letters grown or thinned, as photocopies have them."""
    kernel = np.ones((2, 2), np.uint8)
    return np.asarray(cv2.erode(page, kernel) if rng.random() < 0.6 else cv2.dilate(page, kernel), dtype=np.float32)


def two_tone(page: Array, rng: random.Random) -> Array:
    """Black and white only, as fax and cheap scanners make it."""
    grey = page.mean(axis=2) + _grain(rng, page.shape[:2], 0.05)
    level = rng.uniform(0.55, 0.7) * float(np.median(page))
    return np.repeat((grey > level).astype(np.float32)[:, :, None], 3, axis=2)


def compressed(page: Array, quality: int) -> Array:
    """After JPEG of that quality."""
    done, data = cv2.imencode(".jpg", (page.clip(0, 1) * 255).astype(np.uint8)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1].astype(np.float32) / 255


def defocused(page: Array, rng: random.Random, least: float, most: float) -> Array:
    """Out of focus, or moved while it was taken."""
    if rng.random() < 0.7:
        return np.asarray(cv2.GaussianBlur(page, (0, 0), rng.uniform(least, most)), dtype=np.float32)
    long = max(3, int(rng.uniform(least, most) * 3.2))
    kernel = np.zeros((long, long), np.float32)
    kernel[long // 2] = 1 / long
    turn = cv2.getRotationMatrix2D((long / 2 - 0.5, long / 2 - 0.5), rng.uniform(0, 180), 1)
    kernel = cv2.warpAffine(kernel, turn, (long, long))
    return np.asarray(cv2.filter2D(page, -1, kernel / kernel.sum()), dtype=np.float32)


# -- where the paper lies


def scanned(page: Array, rng: random.Random, *, loose: bool = True) -> Array:
    """On a scanner's white lid, or cut close."""
    if not loose or rng.random() < 0.5:
        return page
    top, bottom, left, right = (rng.randrange(10, 120) for _ in range(4))
    lid = rng.uniform(0.93, 1.0) if rng.random() < 0.8 else rng.uniform(0.05, 0.3)
    out = np.full((page.shape[0] + top + bottom, page.shape[1] + left + right, 3), lid, np.float32)
    out[top : top + page.shape[0], left : left + page.shape[1]] = page
    return out


def turned(page: Array, degrees: float, ground: float) -> Array:
    """Turned about its middle, on a larger ground."""
    height, width = page.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    wide, high = int(height * sin + width * cos) + 2, int(height * cos + width * sin) + 2
    matrix[:, 2] += (wide / 2 - width / 2, high / 2 - height / 2)
    return np.asarray(
        cv2.warpAffine(page, matrix, (wide, high), flags=cv2.INTER_CUBIC, borderValue=(ground,) * 3), dtype=np.float32
    ).clip(0, 1)


def creased(page: Array, rng: random.Random) -> Array:
    """Folded across, perhaps along too: shade on both sides of the crease, worn ink on it, and parts that do not lie flat."""
    for _ in range(rng.randrange(1, 4)):
        page = _crease(page, rng)
    if rng.random() < 0.4:
        page = _crease(page.transpose(1, 0, 2), rng).transpose(1, 0, 2)
    return np.ascontiguousarray(page)


def _crease(page: Array, rng: random.Random) -> Array:
    height, width = page.shape[:2]
    at, tilt = rng.uniform(0.15, 0.85) * height, rng.uniform(-0.03, 0.03)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    far = y - at - tilt * (x - width / 2)
    below = (far > 0).astype(np.float32)
    lean, shift, depth = rng.uniform(-0.022, 0.022), rng.uniform(-4, 4), rng.uniform(-0.5, 1.2)
    map_x = x + below * (shift + lean * far)
    map_y = y + depth * np.exp(-np.abs(far) / 14) * np.sign(far)
    page = cv2.remap(page, map_x, map_y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    shade = 1 - rng.uniform(0.1, 0.32) * np.exp(-np.abs(far) / rng.uniform(12, 45)) * (below if rng.random() < 0.5 else 1 - below)
    shade *= 1 - rng.uniform(0.0, 0.1) * below
    worn = np.exp(-((far / rng.uniform(0.8, 2.0)) ** 2)) * rng.uniform(0.2, 0.7) * (0.4 + 0.6 * _noise(rng, height, width, 9))
    return np.asarray(page * shade[:, :, None] * (1 - worn[:, :, None]) + worn[:, :, None] * 0.93, dtype=np.float32)


def photographed(page: Array, rng: random.Random) -> Array:
    """On a table, seen aslant by a camera, in the light of the room."""
    page = _curled(page, rng) if rng.random() < 0.5 else page
    height, width = page.shape[:2]
    wide, high = int(width * rng.uniform(1.25, 1.7)), int(height * rng.uniform(1.1, 1.3))
    lean, angle = rng.uniform(0.01, 0.09), np.radians(rng.uniform(-7, 7))
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float32)
    nearer = rng.choice((1, -1))
    scale = 1 + nearer * lean * corners[:, 1] + rng.uniform(-0.5, 0.5) * lean * corners[:, 0]
    flat = corners * (width / 2, height / 2) * scale[:, None]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    flat = flat @ turn.T
    fit = min(1.0, 0.97 * wide / np.ptp(flat[:, 0]), 0.98 * high / np.ptp(flat[:, 1]))
    target = (flat * fit + (wide / 2, high / 2)).astype(np.float32)
    source = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float32)
    matrix = cv2.getPerspectiveTransform(source, target)
    table = _table(rng, high, wide)
    cover = cv2.warpPerspective(np.ones((height, width), np.float32), matrix, (wide, high), flags=cv2.INTER_LINEAR)
    shadow = cv2.GaussianBlur(np.roll(cover, (9, 7), (0, 1)), (0, 0), 11)[:, :, None]
    seen = cv2.warpPerspective(page, matrix, (wide, high), flags=cv2.INTER_CUBIC)
    photo = table * (1 - 0.45 * shadow) * (1 - cover[:, :, None]) + seen * cover[:, :, None]
    photo = uneven(photo.astype(np.float32), rng, 0.4) * rng.uniform(0.85, 1.02)
    photo = photo * np.array((1, rng.uniform(0.94, 1.0), rng.uniform(0.82, 1.0)), dtype=np.float32)
    return np.asarray(photo + _grain(rng, photo.shape, 0.012), dtype=np.float32).clip(0, 1)


def _curled(page: Array, rng: random.Random) -> Array:
    """Paper from a roll does not lie flat: lines bend, and the bend is shaded."""
    height, width = page.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    bend = rng.uniform(-7, 7) * np.sin(np.pi * x / width + rng.uniform(-0.4, 0.4)) + rng.uniform(-5, 5) * np.sin(
        2 * np.pi * y / height
    )
    side = rng.uniform(-6, 6) * np.sin(1.5 * np.pi * y / height + rng.uniform(0, 3))
    out = cv2.remap(
        page, (x + side).astype(np.float32), (y + bend).astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    shade = 1 - 0.12 * np.abs(np.sin(np.pi * y / height * rng.uniform(1, 2)))
    return np.asarray(out * shade[:, :, None], dtype=np.float32)


def _table(rng: random.Random, height: int, width: int) -> Array:
    """Wood, stone or cloth."""
    colour = np.array(
        rng.choice(
            ((0.45, 0.3, 0.18), (0.3, 0.3, 0.32), (0.62, 0.58, 0.5), (0.15, 0.16, 0.2), (0.5, 0.42, 0.36), (0.75, 0.74, 0.72))
        ),
        dtype=np.float32,
    )
    grain = _noise(rng, height, width, 60)
    if rng.random() < 0.5:  # boards
        long = _noise(rng, max(40, height // 40), width, 4)
        grain = 0.4 * grain + 0.6 * cv2.resize(long, (width, height))
    else:
        grain = 0.6 * grain + 0.4 * _noise(rng, height, width, 3)
    return np.asarray(colour * (0.7 + 0.5 * grain[:, :, None]), dtype=np.float32)


# -- the classes


def clean(page: Array, rng: random.Random) -> Array:
    return compressed(scanned(page, rng), rng.randrange(82, 96))


def skewed(page: Array, rng: random.Random) -> Array:
    """Two to twelve degrees off; one in four lies on its side or upside down as well."""
    degrees = rng.choice((-1, 1)) * rng.uniform(2, 12)
    if rng.random() < 0.25:
        degrees += rng.choice((90, 180, 270))
    return compressed(turned(page, degrees, rng.choice((1.0, 0.97, 0.2, 0.45))), rng.randrange(70, 95))


def noisy(page: Array, rng: random.Random) -> Array:
    """Two or three of what befalls paper, then a JPEG of low quality."""
    harms = [faded, streaked, speckled, uneven, stamped, handwritten, stained, spread]
    for harm in rng.sample(harms, rng.choice((2, 2, 3))):
        page = harm(page, rng)
    page = scanned(page, rng)
    if rng.random() < 0.12:
        page = two_tone(page, rng)
    return compressed(page, rng.randrange(22, 70))


def low_resolution(page: Array, rng: random.Random) -> Array:
    """Few pixels a letter: capitals of eight to eleven pixels."""
    page = scanned(page, rng)
    scale = rng.uniform(0.48, 0.68)
    small = cv2.resize(page, None, fx=scale, fy=scale, interpolation=rng.choice((cv2.INTER_AREA, cv2.INTER_LINEAR)))
    return compressed(np.asarray(small, dtype=np.float32), rng.randrange(45, 85))


def blurred(page: Array, rng: random.Random) -> Array:
    return compressed(defocused(scanned(page, rng), rng, 1.2, 2.9), rng.randrange(60, 92))


def folded(page: Array, rng: random.Random) -> Array:
    return compressed(scanned(creased(page, rng), rng), rng.randrange(65, 92))


def perspective(page: Array, rng: random.Random) -> Array:
    photo = photographed(creased(page, rng) if rng.random() < 0.25 else page, rng)
    return compressed(defocused(photo, rng, 0.4, 0.8) if rng.random() < 0.5 else photo, rng.randrange(60, 92))


def foreign(page: Array, rng: random.Random) -> Array:
    """Mild wear: what the class tries is the language."""
    page = turned(page, rng.uniform(-1.5, 1.5), 1.0) if rng.random() < 0.4 else page
    page = faded(page, rng) if rng.random() < 0.15 else page
    return compressed(scanned(page, rng), rng.randrange(70, 95))


WEAR: dict[str, Callable[[Array, random.Random], Array]] = dict(
    zip(CLASSES, (clean, skewed, noisy, low_resolution, blurred, folded, perspective, foreign), strict=True)
)


def worn(kind: str, mask: Image.Image, ink: tuple[int, int, int], rng: random.Random, *, dots: bool = False) -> Image.Image:
    """The picture of a printed sheet after wear of that class, as RGB."""
    page = WEAR[kind](printed(mask, ink, rng, dots=dots), rng)
    return Image.fromarray((page.clip(0, 1) * 255).round().astype(np.uint8))
