"""Wears a folder of drawn receipts by a hand that is not ours: three effects of Augraphy each, as a check of our own wear.

python -m venv /tmp/augraphy && /tmp/augraphy/bin/pip install augraphy      # apart: it brings 850 MB and another OpenCV
python -m tests.receipts.render --seed 1 --count 50 --classes clean -- DRAWN
/tmp/augraphy/bin/python bench/augraphed.py DRAWN WORN && python bench/receipts.py --set WORN
"""

from __future__ import annotations

import argparse
import random
import shutil
from pathlib import Path

import augraphy
import cv2
import matplotlib.font_manager  # noqa: F401  # Augraphy uses it and does not import it
import numpy as np

# Those that leave paper legible to people: the library's default pipeline leaves half of the receipts unreadable.
EFFECTS = (
    augraphy.Folding,
    augraphy.BleedThrough,
    augraphy.DirtyDrum,
    augraphy.DirtyRollers,
    augraphy.InkBleed,
    augraphy.Jpeg,
    augraphy.LightingGradient,
    augraphy.LowInkPeriodicLines,
    augraphy.LowInkRandomLines,
    augraphy.ShadowCast,
    augraphy.SubtleNoise,
    augraphy.ColorPaper,
)


def wear(drawn: Path, worn: Path, seed: int) -> None:
    """Every picture of a folder into another, with the same truth."""
    (worn / "img").mkdir(parents=True, exist_ok=True)
    shutil.copy(drawn / "truth.json", worn / "truth.json")
    for at, path in enumerate(sorted((drawn / "img").iterdir())):
        random.seed(seed + at)
        np.random.seed(seed + at)  # what the library draws from
        image = cv2.imread(str(path))
        for effect in random.sample(EFFECTS, 3):
            image = effect()(image)
        cv2.imwrite(str(worn / "img" / path.name), image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drawn", type=Path)
    parser.add_argument("worn", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    wear(options.drawn, options.worn, options.seed)


if __name__ == "__main__":
    main()
