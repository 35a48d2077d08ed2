"""What a receipt says: a shop, goods, discounts, taxes and a payment whose arithmetic is exact to the cent."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal

from tests.receipts.places import WORDS, Place, Words

KINDS = ("grocery", "restaurant", "pharmacy", "office", "fuel", "parking")
SUFFIXES = ("", "", "", "", " 500G", " (L)", " x2", " 1KG", " 330ML", " PROMO", " *", " NEW", " 2 FOR 1", " 10/20", " S/M", " No.7")
CODES = ("{9}{4}", "{6}", "{A}{A}{3}", "00{5}", "{4}")
FIRST_DAY, DAYS = dt.date(2014, 1, 2), 4700


@dataclass
class Line:
    """One thing bought; `amount` is what is printed for it, before any discount line of its own."""

    name: str
    amount: Decimal
    quantity: Decimal = Decimal(1)
    unit_price: Decimal = Decimal(0)
    unit: str = ""  # kg, l; empty for pieces
    rate: Decimal = Decimal(0)
    letter: str = ""
    code: str = ""
    discount: Decimal = Decimal(0)  # negative, printed on a line below


@dataclass
class Tax:
    """One rate: `net` + `amount` = `gross`."""

    label: str
    rate: Decimal
    net: Decimal
    amount: Decimal
    letter: str = ""

    @property
    def gross(self) -> Decimal:
        return self.net + self.amount


@dataclass
class Receipt:
    """All that may be printed; a layout picks from it, and what it prints is the truth."""

    place: Place
    kind: str
    shop: str
    company: str
    when: dt.datetime
    lines: list[Line]
    discount: Decimal = Decimal(0)  # on the whole, negative
    service: Decimal = Decimal(0)
    service_rate: Decimal = Decimal(0)
    taxes: list[Tax] = field(default_factory=list)
    included: bool = False
    rounding: Decimal = Decimal(0)
    due: Decimal = Decimal(0)  # before rounding
    paid: Decimal = Decimal(0)
    cash: bool = False

    @property
    def words(self) -> Words:
        return WORDS[self.place.words]

    @property
    def goods(self) -> Decimal:
        return sum((line.amount + line.discount for line in self.lines), Decimal(0))

    @property
    def total(self) -> Decimal:
        return self.due + self.rounding

    @property
    def change(self) -> Decimal:
        return self.paid - self.total

    @property
    def tax(self) -> Decimal:
        return sum((tax.amount for tax in self.taxes), Decimal(0))


def digits(rng: random.Random, pattern: str) -> str:
    """A number by its pattern: `{4}` is four digits, `{A}` a capital letter, `#` a digit."""
    out, at = [], 0
    while at < len(pattern):
        mark = pattern[at]
        if mark == "#":
            out.append(str(rng.randrange(10)))
        elif mark == "{" and pattern[at + 2] == "}":
            what = pattern[at + 1]
            out.append(
                rng.choice("ABCDEFGHJKLMNPRSTUVWXY") if what == "A" else "".join(str(rng.randrange(10)) for _ in range(int(what)))
            )
            at += 2
        else:
            out.append(mark)
        at += 1
    return "".join(out)


def to_unit(value: Decimal, decimals: int) -> Decimal:
    """Rounded to the currency's smallest coin, halves away from zero."""
    return value.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)


def draw(rng: random.Random, place: Place, kind: str) -> Receipt:
    """A receipt of that country and kind of shop."""
    shop, company = name_shop(rng, place, kind)
    receipt = Receipt(place, kind, shop, company, moment(rng), [])
    receipt.included = rng.random() < place.included
    receipt.cash = rng.random() < 0.5
    rates = [Decimal(r) for r in _rates(rng, place)]
    receipt.lines = lines(rng, receipt, rates)
    _discount(rng, receipt, rates)
    _service(rng, receipt)
    _tax(rng, receipt, rates)
    _settle(rng, receipt)
    return receipt


def name_shop(rng: random.Random, place: Place, kind: str) -> tuple[str, str]:
    """The shop's name, and the end that makes it a company's (which may be empty)."""
    words = WORDS[place.words]
    pattern, name = rng.choice(words.shops[kind]), rng.choice(words.shops["names"])
    return pattern.format(n=name), rng.choice(place.company)


def moment(rng: random.Random) -> dt.datetime:
    day = FIRST_DAY + dt.timedelta(days=rng.randrange(DAYS))
    return dt.datetime.combine(day, dt.time(rng.randrange(7, 23), rng.randrange(60), rng.randrange(60)))


def _rates(rng: random.Random, place: Place) -> Sequence[str]:
    several = len(place.rates) > 1 and place.included > 0.8 and place.code not in ("JP", "GB")
    if several and rng.random() < 0.45:
        return place.rates[:2]
    return (rng.choice(place.rates[:2]),)


def lines(rng: random.Random, receipt: Receipt, rates: list[Decimal]) -> list[Line]:
    if receipt.kind in ("fuel", "parking"):
        return [_fuel(rng, receipt, rates[0])] if receipt.kind == "fuel" else [_parking(rng, receipt, rates[0])]
    words = receipt.words
    goods = list(getattr(words, receipt.kind))
    if receipt.kind != "restaurant" and len(goods) < 10:
        goods += words.grocery[:4]
    rng.shuffle(goods)
    many = rng.choice((1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8, 10, 12, 15))
    return [_line(rng, receipt, good, rates) for good in goods[:many]]


def _line(rng: random.Random, receipt: Receipt, good: tuple[str, float, float], rates: list[Decimal]) -> Line:
    name, low, high = good
    place = receipt.place
    price = _price(rng, place, low, high)
    if receipt.kind == "grocery" and rng.random() < 0.12:
        weight = Decimal(rng.randrange(120, 2600)) / 1000
        line = Line(name, to_unit(weight * price, place.decimals), weight, price, "lb" if place.code == "US" else "kg")
    else:
        most = (1, 1, 1, 1, 2, 2, 3, 4) if receipt.kind == "restaurant" else (1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4, 6, 10)
        quantity = Decimal(rng.choice(most))
        line = Line(name + (rng.choice(SUFFIXES) if rng.random() < 0.4 else ""), price * quantity, quantity, price)
        if rng.random() < 0.06 and line.amount > 2:
            line.discount = -to_unit(line.amount * Decimal(rng.choice(("0.1", "0.2", "0.5"))), place.decimals)
    at = rng.randrange(len(rates))
    line.rate, line.letter = rates[at], "ABC"[at]
    line.code = digits(rng, rng.choice(CODES))
    return line


def _price(rng: random.Random, place: Place, low: float, high: float) -> Decimal:
    value = rng.uniform(low, high) * place.scale
    if place.decimals == 0:
        step = 100 if place.scale > 1000 else 1
        return Decimal(max(step, round(value / step) * step))
    ends = ("0.99", "0.95", "0.50", "0.00", "0.90", "0.49")
    if value > 2 and rng.random() < 0.6:
        return Decimal(int(value)) + Decimal(rng.choice(ends))
    return max(to_unit(Decimal(value), 2), Decimal("0.05"))


def _fuel(rng: random.Random, receipt: Receipt, rate: Decimal) -> Line:
    litre = to_unit(Decimal(rng.uniform(0.9, 1.9) * receipt.place.scale), 3 if receipt.place.decimals else 0)
    volume = Decimal(rng.randrange(600, 6200)) / 100
    unit = "gal" if receipt.place.code == "US" else "L"
    return Line(rng.choice(receipt.words.fuel), to_unit(litre * volume, receipt.place.decimals), volume, litre, unit, rate, "A")


def _parking(rng: random.Random, receipt: Receipt, rate: Decimal) -> Line:
    fee = _price(rng, receipt.place, 1, 18)
    return Line(receipt.words.parking[0], fee, Decimal(1), fee, "", rate, "A")


def _discount(rng: random.Random, receipt: Receipt, rates: list[Decimal]) -> None:
    if len(rates) == 1 and receipt.kind not in ("fuel", "parking") and rng.random() < 0.12:
        receipt.discount = -to_unit(receipt.goods * Decimal(rng.choice(("0.05", "0.10", "0.15", "0.20"))), receipt.place.decimals)


def _service(rng: random.Random, receipt: Receipt) -> None:
    chance = {"MY": 0.4, "SG": 0.5, "US": 0.1, "ID": 0.3, "IN": 0.2, "PH": 0.3, "GB": 0.25, "BR": 0.5}.get(receipt.place.code, 0)
    if receipt.kind == "restaurant" and rng.random() < chance:
        receipt.service_rate = (
            Decimal(rng.choice(("10", "10", "12.5", "18"))) if receipt.place.code in ("US", "GB") else Decimal(10)
        )
        receipt.service = to_unit((receipt.goods + receipt.discount) * receipt.service_rate / 100, receipt.place.decimals)


def _tax(rng: random.Random, receipt: Receipt, rates: list[Decimal]) -> None:
    place, label = receipt.place, rng.choice(receipt.place.tax)
    extra = receipt.discount + receipt.service
    if not receipt.included and rng.random() < 0.08:
        receipt.due = receipt.goods + extra  # no tax at all
        return
    if not receipt.included:
        rates = rates[:1]
    for at, rate in enumerate(rates):
        gross = sum((line.amount + line.discount for line in receipt.lines if line.rate == rate or len(rates) == 1), Decimal(0))
        gross += extra if at == 0 else 0
        if gross:
            receipt.taxes += _parts(place, label, rate, gross, "ABC"[at], receipt.included)
    receipt.due = receipt.goods + extra + (0 if receipt.included else receipt.tax)


def _parts(place: Place, label: str, rate: Decimal, base: Decimal, letter: str, included: bool) -> list[Tax]:
    if included:
        net = to_unit(base / (1 + rate / 100), place.decimals)
        return [Tax(label, rate, net, base - net, letter)]
    if place.tax_split:
        half = to_unit(base * rate / 200, place.decimals)
        return [Tax(name, rate / 2, base, half, letter) for name in place.tax_split]
    return [Tax(label, rate, base, to_unit(base * rate / 100, place.decimals), letter)]


def _settle(rng: random.Random, receipt: Receipt) -> None:
    place = receipt.place
    if place.cash_step and receipt.cash:
        step = Decimal(place.cash_step)
        receipt.rounding = (receipt.due / step).quantize(Decimal(1), ROUND_HALF_UP) * step - receipt.due
    receipt.paid = receipt.total
    if receipt.cash:
        note = Decimal(rng.choice((1, 5, 10, 20, 50))) * Decimal(10) ** max(0, len(str(int(place.scale))) - 1)
        receipt.paid = (receipt.total / note).to_integral_value("ROUND_CEILING") * note
