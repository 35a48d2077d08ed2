"""The faces that receipts are set in; all are free and come as Debian packages, so nothing is bundled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from PIL import ImageFont

PACKAGES = (
    "fonts-dejavu-core",
    "fonts-liberation",
    "fonts-inconsolata",
    "fonts-courier-prime",
    "fonts-3270",
    "fonts-glasstty",
    "fonts-spleen",
    "fonts-noto-mono",
    "fonts-agave",
    "fonts-hermit",
    "fonts-roboto-unhinted",
    "fonts-lato",
    "fonts-dkg-handwriting",
    "fonts-breip",
)


@dataclass(frozen=True)
class Face:
    """A family as a register or a laser printer uses it."""

    regular: str
    bold: str = ""  # empty: the regular one, struck twice
    mono: bool = True
    dots: bool = False  # made of dots already


MONO = (
    Face("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf"),
    Face("LiberationMono-Regular.ttf", "LiberationMono-Bold.ttf"),
    Face("Inconsolata.otf"),
    Face("Courier Prime.otf", "Courier Prime Bold.otf"),
    Face("Courier Prime Sans.otf", "Courier Prime Sans Bold.otf"),
    Face("3270-Regular.ttf"),
    Face("3270SemiCondensed-Regular.ttf"),
    Face("Glass_TTY_VT220.ttf", dots=True),
    Face("spleen-12x24.otf"),
    Face("NotoMono-Regular.ttf"),
    Face("agave-r-autohinted.ttf", "agave-b-autohinted.ttf"),
    Face("Hermit-medium.otf", "Hermit-bold.otf"),
)
PROPORTIONAL = (
    Face("LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf", mono=False),
    Face("LiberationSansNarrow-Regular.ttf", "LiberationSansNarrow-Bold.ttf", mono=False),
    Face("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", mono=False),
    Face("RobotoCondensed-Regular.ttf", "RobotoCondensed-Bold.ttf", mono=False),
    Face("Roboto-Regular.ttf", "Roboto-Bold.ttf", mono=False),
    Face("Lato-Regular.ttf", "Lato-Bold.ttf", mono=False),
    Face("LiberationSerif-Regular.ttf", "LiberationSerif-Bold.ttf", mono=False),
)
HANDS = ("dkg.ttf", "Breip.ttf")
DISPLAY = (
    "DejaVuSerif-Bold.ttf",
    "LiberationSerif-Bold.ttf",
    "Lato-Bold.ttf",
    "RobotoCondensed-Bold.ttf",
    "Courier Prime Bold.otf",
)


class NoFonts(RuntimeError):
    """A face is not on this machine."""


@lru_cache(maxsize=256)
def load(name: str, size: int) -> ImageFont.FreeTypeFont:
    """The face at that size in pixels; `NoFonts` tells what to install."""
    try:
        return ImageFont.truetype(name, size)
    except OSError as error:
        raise NoFonts(f"the font {name} is not installed: `apt-get install {' '.join(PACKAGES)}`, then run this again") from error


@lru_cache(maxsize=4096)
def _has(name: str, letter: str) -> bool:
    font = load(name, 24)
    mask = font.getmask(letter)
    if letter.isspace():
        return True
    blank, missing = mask.getbbox() is None, font.getmask("\uffff")
    return not blank and (mask.size != missing.size or bytes(mask) != bytes(missing))


def covers(name: str, text: str) -> bool:
    """Whether the face has every letter of the text."""
    return all(_has(name, letter) for letter in set(text))
