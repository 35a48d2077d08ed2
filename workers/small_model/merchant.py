"""Who issued the receipt: the line of its head that is most like the name of a business."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from workers.small_model.labels import plain_letters
from workers.small_model.rows import TALL, Row

_PAPER = (
    r"receipt|invoice|bill|check|copy|quittung|rechnung|bon|kassenbon|kundenbeleg|beleg|ticket|facture|recibo|factura|scontrino|"
    r"documento|kassabon|kvitto|kvittering|paragon|fiskalny|nota|resit|invois|simplified|duplicate|reprint|original|customer|"
    r"kopie|copie|copia|fis|struk|danados|doklad|uctenka|merchant|sale|sales|order|takeaway|dine|eat in|tax|cash|guest|"
    r"commerciale|cliente"
)
_NO_NAME = re.compile(
    rf"^\W*(?:(?:{_PAPER}|welcome(?: to)?|bienvenue|willkommen|thank you|merci|danke|gracias|grazie|terima kasih|page|table|"
    r"tisch|mesa|server|cashier|counter|pos|kasse|reg|store|branch|the|no|of|a|de|in)\b\W*)+\w{0,4}\W*$|"
    r"^\W*(?:tgl|tarikh|tanggal|datum|fecha|welcome|thank|bienvenue|willkommen|merci|vielen dank|served by|your |"
    r"customer|cashier|table|date|order|guests?)\b"
)
_CONTACT = re.compile(
    r"\b(?:tel|telp?|phone|ph|fax|date|datum|fecha|gst|vat|abn|sst|nif|cif|nip|p\.?\s?iva|ust|tva|siret|"
    r"cnpj|gstin|pan|hotline|reg|roc|co\.?\s?no|"
    r"company no|id|time|invoice|inv|receipt no|bill no|whatsapp|e-?mail|uid|kvk|btw|org\.?\s?nr|tin)"
    r"\b\W*[:#.]?\W*[\w(]*\d|@|www\.|https?:|\.com\b|"
    r"\d{1,2}[:/.-]\d{2}[:/.-]?\d*|\+\d{2}|\d{3}[ -]\d{3,4}\b"
)
_ADDRESS = re.compile(
    r"\d+\s?,.*\b(?:rd|st|road|street|jln|jalan|lane)\b|\b(?:jalan|jln|jl|lorong|taman|lot|no\.?\s?\d+|street|st|road|rd|ave|avenue|blvd|lane|ln|drive|dr|suite|unit|level|floor|plaza|strasse|str|"
    r"weg|platz|allee|gasse|rue|place|chemin|calle|avda|plaza|via|viale|corso|piazza|straat|laan|plein|gatan|vagen|vej|gade|ulica|ul|al|"
    r"rua|avenida|cad|cadde|sok|mah|no)\b.*\d|^\W*\d{4,6}\s+[a-z]|\b\d{5,6}\b|^\W*\d+[,\s-]"
)
_FORM = re.compile(
    r"\b(?:sdn\.?\s?bhd|bhd|s/b|pte\.?\s?ltd|pty\.?\s?ltd|ltd|limited|plc|llc|inc|corp|co|company|gmbh|ag|kg|ohg|e\.?\s?k|ug|sarl|sas|s\.?a\.?s?|sa|"
    r"s\.?r\.?l|s\.?p\.?a|s\.?l|b\.?v|n\.?v|a/s|aps|ab|oy|as|sp\.?\s?z\.?\s?o\.?\s?o|s\.?r\.?o|lda|ltda|a\.?s|tbk|pt|cv|plt|llp|"
    r"trading|enterprise|enterprises)\b\W*(?:\(|\d|$|[a-z]{0,3}$)"
)
_TRADE = re.compile(
    r"(?:restaurant|restoran|restaurante|ristorante|trattoria|cafe|kafe|coffee|kopitiam|bakery|backerei|boulangerie|bistro|bar|grill|pizzeria|kitchen|"
    r"market|mart|supermarket|supermercado|supermarche|markt|store|shop|stores|hardware|pharmacy|farmacia|apotheke|pharmacie|farmasi|clinic|hotel|"
    r"station|petrol|fuel|mini|deli|foods?|house|stationer|books?|electrical|motor|auto|parking|garage|boutique|fashion|garden|super)"
)
_KIND = re.compile(
    r"(?:syarikat|perniagaan|kedai|restoran|restaurant|klinik|poliklinik|pasaraya|farmasi|pejabat|hotel|stesen|warung|toko|pt|cv)"
)
_HAN = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]{2}")
_OPERATOR = re.compile(r"\b(?:operated|managed|franchise\w*|owned|licensed|formerly|member of|part of)\b")
SECOND = 1.15  # lines of a name on two lines are taller than the usual by this
FAR = 14  # a name stands in the first lines


@dataclass(frozen=True)
class Merchant:
    """The name, its row, and the chance that it is right."""

    name: str
    row: Row
    confidence: float


def find_merchant(head: Sequence[Row]) -> Merchant | None:
    """The most likely name among the rows above the items, or None."""
    ranked = sorted(((_weight(row, n), -n, row) for n, row in enumerate(head[:FAR])), key=lambda w: w[:2], reverse=True)
    if not ranked or ranked[0][0] <= 0:
        return None
    weight, _, row = ranked[0]
    margin = weight - (ranked[1][0] if len(ranked) > 1 else 0.0)
    chance = min(0.95, 0.35 + 0.12 * weight + 0.1 * max(0.0, margin)) * min(1.0, row.confidence + 0.15)
    return Merchant(_name(head, row), row, round(chance, 3))


def _weight(row: Row, place: int) -> float:
    """How much a row is like a name: high up, tall, with a company's form or a trade, and no address or number."""
    text = _business(row) if not row.amounts else ""
    plain = plain_letters(text)
    letters = len(re.findall(r"[^\W\d_]", plain))
    if letters < 3 or (row.name and row.name.certainty >= 0.9) or _NO_NAME.search(plain) or (row.confidence < 0.5 and place):
        return 0.0
    weight = 3.0 - min(place, 8) * 0.35
    weight += 1.6 if _FORM.search(plain) else 0.0
    weight += 0.3 if _TRADE.search(plain) else 0.0
    weight += min(1.5, 2.0 * (row.tall - TALL)) if row.tall >= TALL else 0.0
    weight += 1.2 if _KIND.match(plain) else 0.0
    weight -= 0.9 if text == text.lower() else 0.0  # a hand's note above the head
    weight -= 1.5 if re.search(r"\bbank\b", plain) or _HAN.search(text) else 0.0
    weight -= 4.0 if _OPERATOR.search(plain) else 0.0
    weight -= 2.5 if _CONTACT.search(plain) else 0.0
    weight -= 2.0 if _ADDRESS.search(plain) else 0.0
    weight -= 1.2 if letters < 0.6 * len(plain.replace(" ", "")) else 0.0
    weight -= 0.8 if row.confidence < 0.75 else 0.0
    return weight


def _business(row: Row) -> str:
    """The cells of a row that can be a name: wide letters are read as many cells, and a document's kind stands beside it."""
    cells = [c for c in row.text.split("  ") if not _NO_NAME.search(plain_letters(c))]
    return " ".join(cells) if not any(re.search(r"\d{2}|(?<![A-Za-z])\d", c) for c in cells) else (cells or [""])[0]


def _name(head: Sequence[Row], row: Row) -> str:
    """The row's name; a line that is only a company's form belongs to the line above."""
    name = _tidy(_business(row))
    at = next(n for n, r in enumerate(head) if r is row)
    above = head[at - 1] if at else None
    form = _FORM.search(plain_letters(name))
    if above and form and len(name[: form.start()].split()) <= 2 and form.start() <= 16 and _goes_on(above, row):
        return f"{_tidy(_business(above))} {name}"
    below = head[at + 1] if at + 1 < len(head) else None
    return f"{name} {_tidy(_business(below))}" if below and _is_second_half(row, below) else name


def _is_second_half(row: Row, below: Row) -> bool:
    """Whether a tall name goes on in one or two more tall words."""
    text = plain_letters(_business(below))
    tall = min(row.tall, below.tall) >= SECOND and 0.8 <= below.tall / row.tall <= 1.25
    words = re.fullmatch(r"[^\W\d_&.]{3,}(?:[\s&.]+[^\W\d_]+)?", text)
    return tall and words is not None and not (_NO_NAME.search(text) or _ADDRESS.search(text) or _CONTACT.search(text))


def _goes_on(above: Row, row: Row) -> bool:
    """Whether a name may begin in the row above: set alike, letters only, and no kind of document."""
    text = plain_letters(_business(above))
    alike = 0.7 <= above.tall / max(row.tall, 0.1) <= 1.4 and not plain_letters(row.text).startswith(text)
    return (
        alike
        and not re.fullmatch(r"\s*[(（].*[)）]\W*", row.text)
        and len(text) >= 3
        and not re.search(r"\d", text)
        and not (_NO_NAME.search(text) or _FORM.search(text))
    )


def _tidy(name: str) -> str:
    return re.sub(r"\s*\(?\b\d{4,}-?[A-Z]?\)?$", "", name.strip(" *-=#.:|~_")).strip(" *-=#:|~_(")
