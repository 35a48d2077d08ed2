"""Languages by ISO 639-1: what Tesseract's packs are called, and which ones RapidOCR's characters do not cover."""

from __future__ import annotations

PACKS = {
    "af": "afr", "ar": "ara", "az": "aze", "be": "bel", "bg": "bul", "bs": "bos", "ca": "cat", "cs": "ces", "cy": "cym",
    "da": "dan", "de": "deu", "el": "ell", "en": "eng", "eo": "epo", "es": "spa", "et": "est", "eu": "eus", "fa": "fas",
    "fi": "fin", "fr": "fra", "ga": "gle", "gl": "glg", "he": "heb", "hi": "hin", "hr": "hrv", "hu": "hun", "hy": "hye",
    "id": "ind", "is": "isl", "it": "ita", "ja": "jpn", "ka": "kat", "kk": "kaz", "ko": "kor", "la": "lat", "lb": "ltz",
    "lt": "lit", "lv": "lav", "mk": "mkd", "ms": "msa", "mt": "mlt", "nb": "nor", "nl": "nld", "nn": "nor", "no": "nor",
    "pl": "pol", "pt": "por", "ro": "ron", "ru": "rus", "sk": "slk", "sl": "slv", "sq": "sqi", "sr": "srp", "sv": "swe",
    "sw": "swa", "th": "tha", "tl": "fil", "tr": "tur", "uk": "ukr", "ur": "urd", "uz": "uzb", "vi": "vie", "zh": "chi_sim",
}  # fmt: skip
"""The name of Tesseract's pack (ISO 639-2/T with few exceptions), as its tessdata repository lists them."""

OTHER_SCRIPTS = frozenset(
    {"ar", "be", "bg", "fa", "he", "hi", "hy", "ka", "kk", "ko", "mk", "ru", "sr", "th", "uk", "ur", "vi"}
)  # fmt: skip
"""What the characters of PP-OCRv6 (`small`), listed in its model, cannot write: Cyrillic, Hangul, Thai, Vietnamese marks ..."""


def plain(language: str) -> str:
    """The two letters of a language tag: `de` of `de-AT`."""
    return language.strip().lower().replace("_", "-").partition("-")[0]
