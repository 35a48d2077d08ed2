"""How a receipt is set: each layout puts a printer's parts in the order that one kind of register has."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from tests.receipts.content import digits, to_unit
from tests.receipts.fonts import MONO, PROPORTIONAL, Face, covers
from tests.receipts.places import WORDS, Place
from tests.receipts.printer import Printer, dated
from tests.receipts.sheet import Style

INKS = ((25, 25, 28), (25, 25, 28), (40, 40, 46), (60, 50, 90), (50, 60, 120))


@dataclass(frozen=True)
class Layout:
    """One way of setting, and what it suits."""

    print: Callable[[Printer], None]
    kinds: tuple[str, ...]
    places: tuple[str, ...] = ()  # empty: any
    wide: bool = False
    laser: float = 0.35  # how often it is set in a proportional face


def style(rng: random.Random, layout: Layout, place: Place) -> Style:
    """Paper, face and habits of one register."""
    accents = "".join(
        {c for field in vars(WORDS[place.words]).values() for c in str(field) if c.isalpha()} | set("".join(place.symbols))
    )
    plain = rng.random() < (0.3 if place.words not in ("en", "tr", "pl") else 0.1)
    faces = PROPORTIONAL if layout.wide or rng.random() < layout.laser else MONO
    suited = [f for f in faces if plain or all(covers(name, accents) for name in (f.regular, f.bold) if name)]
    face = rng.choice(suited)
    size = rng.randrange(19, 26)
    if layout.wide:
        width, margin = rng.randrange(900, 1120), rng.randrange(40, 70)
    else:
        width, margin = _paper(rng, face, size), rng.randrange(14, 40)
    return Style(
        width=width,
        margin=margin,
        face=face,
        size=size,
        leading=rng.choice((1.1, 1.2, 1.3, 1.45)),
        upper=rng.random() < 0.35,
        ascii=plain,
        rule=rng.choice(("-", "-", "=", "line", "", "*", ".")) if not layout.wide else "line",
        ink=rng.choice(INKS),
        big=rng.choice(((1.0, 1.0), (1.0, 1.7), (1.5, 1.5), (1.6, 1.0), (1.25, 1.25))),
    )


def _paper(rng: random.Random, face: Face, size: int) -> int:
    """Pixels across: 32 to 48 columns, as registers have."""
    columns = rng.choice((32, 36, 38, 40, 42, 48))
    advance = 0.55 if face.mono else 0.5
    return max(360, int(columns * size * advance) + 50)


def grocery_us(p: Printer) -> None:
    p.head()
    early = p.chance(0.6)
    if early:
        p.meta()
        p.sheet.rule()
    p.items_plain()
    p.sheet.rule()
    p.subtotal()
    p.extras()
    p.tax_lines()
    p.rounding()
    p.total()
    p.payment()
    if not early:
        p.meta()
    p.foot()


def grocery_included(p: Printer) -> None:
    """Prices with tax in them, as in most of the world."""
    p.head()
    if p.chance(0.7):
        p.meta()
    p.sheet.rule()
    p.rng.choice((p.items_plain, p.items_plain, p.items_two_lines, p.items_counted))()
    p.sheet.rule()
    if p.receipt.discount or p.receipt.service or p.chance(0.25):
        p.subtotal()
    p.extras()
    if not p.receipt.included:
        p.tax_lines()
    p.rounding()
    p.total()
    p.payment()
    p.sheet.space()
    if p.receipt.included:
        p.taxes_included()
    if not p.date_told:
        p.meta()
    p.foot()


def restaurant_us(p: Printer) -> None:
    """A guest check: the tip is to be written in, and is no part of the bill."""
    p.head()
    p.meta()
    p.sheet.rule()
    p.rng.choice((p.items_counted, p.items_plain, p.items_columns))()
    p.sheet.rule()
    p.subtotal()
    p.extras()
    p.tax_lines()
    p.total()
    p.sheet.space()
    if p.chance(0.5):
        p.payment()
        p.sheet.space()
    if p.chance(0.6):
        p.sheet.pair("Tip", "____________")
        p.sheet.space(0.3)
        p.sheet.pair("Total", "____________")
    if p.chance(0.5):
        p.sheet.middle(p.rng.choice(("Suggested gratuity", "Tip guide")))
        for share in (15, 18, 20):
            p.sheet.middle(f"{share}% = {p.money(to_unit(p.receipt.goods * share / 100, p.place.decimals))}")
    p.foot()


def tax_invoice(p: Printer) -> None:
    """Malaysia: a tax invoice with totals without and with tax, a rounding, and a summary of the tax."""
    r, sheet = p.receipt, p.sheet
    p.head()
    sheet.middle(p.rng.choice(("TAX INVOICE", "TAX INVOICE", "SIMPLIFIED TAX INVOICE", "INVOICE", "CASH BILL")), bold=True)
    p.meta()
    sheet.rule()
    p.rng.choice((p.items_two_lines, p.items_below_columns, p.items_columns, p.items_counted))()
    sheet.rule()
    if p.chance(0.5):
        sheet.pair(
            p.rng.choice(("Total Qty", "Item(s)", "Total Item")) + ":",
            str(sum(1 if x.unit else int(x.quantity) for x in r.lines)),
            at=0.3,
        )
    net = r.goods + r.discount + r.service - (r.tax if r.included else 0)
    if r.taxes and p.chance(0.7):
        p.extras()
        sheet.pair(
            p.rng.choice(("Total Sales (Excluding GST)", "Total Excl. GST", "Total (Excl. GST)", "Sub Total (Excl GST)")).replace(
                "GST", _short(p)
            ),
            p.money(net),
        )
        sheet.pair(
            p.rng.choice(("Total GST", "GST Amount", "Add GST 6%", "GST payable"))
            .replace("GST", _short(p))
            .replace("6%", f"{r.taxes[0].rate:f}%"),
            p.money(r.tax),
        )
        p.tell_tax()
        if r.rounding and p.chance(0.6):
            sheet.pair(
                p.rng.choice(("Total Sales (Inclusive of GST)", "Total Incl. GST")).replace("GST", _short(p)), p.money(r.due)
            )
    else:
        if p.chance(0.6) or r.discount or r.service:
            p.subtotal()
        p.extras()
        if r.taxes and not r.included:
            p.tax_lines()
    p.rounding()
    labels = (
        "Total Sales (Inclusive of GST)",
        "NETT TOTAL",
        "TOTAL AMT PAYABLE",
        "Total (RM)",
        "TOTAL",
        "Total Amount Due",
        "Grand Total",
        "Net Total Rounded",
        "TOTAL RM",
        "Total Payable",
        "AMOUNT DUE",
    )
    p.total(p.rng.choice(labels).replace("GST", _short(p)).replace("RM", _unit(p)))
    p.payment()
    sheet.space()
    if r.taxes and p.chance(0.7):
        _summary(p)
    p.foot()


def _short(p: Printer) -> str:
    return "SST" if p.receipt.taxes and "SST" in p.receipt.taxes[0].label else "GST"


def _unit(p: Printer) -> str:
    return "RM" if p.place.currency == "MYR" else "S$"


def _summary(p: Printer) -> None:
    sheet, r = p.sheet, p.receipt
    sheet.left(p.rng.choice(("GST Summary", "GST SUMMARY", "Tax Summary")).replace("GST", _short(p)))
    mark = p.rng.choice(("SR", "S", "SR-6"))
    unit = _unit(p)
    names, rows = ["Code"], [["%", f"Amount ({unit})", f"Tax ({unit})"]]
    if sheet.width_of(f"Code % Amount ({unit}) Tax ({unit})") > sheet.inner * 0.85:
        rows = [["%", f"Amt({unit})", f"Tax({unit})"]]
    for tax in r.taxes:
        names.append(mark)
        rows.append([f"{tax.rate:f}", p.number(tax.net), p.number(tax.amount)])
    if p.chance(0.4):
        names.append("Total")
        rows.append(["", p.number(sum((t.net for t in r.taxes), Decimal(0))), p.number(r.tax)])
    sheet.grid(names, rows)
    p.tell_tax()


def invoice_wide(p: Printer) -> None:
    """A page with a ruled table."""
    sheet, r = p.sheet, p.receipt
    title = p.word("title")
    if p.chance(0.5):
        p.head("left")
        sheet.row((title, 1, "r"), bold=True, stretch=(1.4, 1.4))
    else:
        p.head()
        sheet.middle(title, bold=True, stretch=(1.3, 1.3))
    sheet.space()
    at = 0.62
    sheet.row(
        (p.rng.choice(("Bill to:", "To:", "Customer:")) if p.place.words == "en" else "", 0, "l"),
        (f"{p.word('receipt')}: {digits(p.rng, 'INV-{5}')}", at, "l"),
    )
    sheet.row(
        (p.rng.choice(("CASH SALE", "Walk-in Customer", "A. Tan")) if p.place.words == "en" else "", 0, "l"),
        (f"{p.word('date').rstrip(' :')}: {p.date()}", at, "l"),
    )
    sheet.space()
    p.items_wide()
    sheet.rule("line")
    p.drawn["indent"] = str(at)
    if not r.included or r.discount or r.service or p.chance(0.5):
        p.subtotal()
    p.extras()
    if not r.included:
        p.tax_lines()
    p.rounding()
    stretch, bold = sheet.style.big, p.chance(0.7)
    label = p.word("total")
    sheet.pair(label, p.money(r.total, total=True), at=at, bold=bold, stretch=(1.0, stretch[1]))
    sheet.tell("total", r.total, p.number(r.total))
    if r.included and r.taxes and p.chance(0.7):
        sheet.pair(p.tax_name(r.taxes[0]) if len(r.taxes) == 1 else r.taxes[0].label, p.money(r.tax), at=at)
        sheet.tell("tax", r.tax, p.number(r.tax))
    sheet.space(2)
    p.foot()


def bon_german(p: Printer) -> None:
    """Letters of the tax rates behind the amounts, and a table of them below."""
    p.flag = "letter"
    p.head()
    p.sheet.row((p.rng.choice(("EUR", "Preis EUR", "€")) if p.place.currency == "EUR" else p.place.currency, 1, "r"))
    p.rng.choice((p.items_plain, p.items_counted, p.items_plain))()
    p.sheet.rule()
    if p.receipt.discount:
        p.subtotal()
    p.extras()
    p.rounding()
    p.total()
    p.payment()
    p.sheet.rule()
    p.tax_table()
    p.sheet.rule()
    p.meta()
    p.foot()


def ticket_columns(p: Printer) -> None:
    """Columns with heads on narrow paper."""
    p.head("left" if p.chance(0.3) else "middle")
    p.meta()
    p.sheet.rule()
    p.rng.choice((p.items_columns, p.items_columns, p.items_below_columns))()
    p.sheet.rule()
    if not p.receipt.included or p.receipt.discount or p.receipt.service or p.chance(0.4):
        p.subtotal()
    p.extras()
    if not p.receipt.included:
        p.tax_lines()
    p.rounding()
    p.total()
    if p.receipt.included:
        p.taxes_included()
    p.payment()
    p.foot()


def bistro(p: Printer) -> None:
    """A bill at the table, tax in the prices."""
    p.head()
    p.meta()
    p.sheet.rule()
    p.items_counted()
    p.sheet.rule()
    if p.receipt.discount or p.receipt.service:
        p.subtotal()
    p.extras()
    if not p.receipt.included:
        p.tax_lines()
    p.rounding()
    p.total()
    p.sheet.space()
    if p.receipt.included:
        p.taxes_included()
    if p.chance(0.6):
        p.payment()
    p.foot()


def polish(p: Printer) -> None:
    p.head()
    if p.chance(0.5):
        p.meta()
    p.sheet.middle("PARAGON FISKALNY", bold=True)
    p.items_polish()
    p.sheet.rule("-")
    p.extras()
    for tax in p.receipt.taxes:
        p.sheet.pair(f"SPRZEDAŻ OPODATKOWANA {tax.letter}", p.number(tax.gross))
        p.sheet.pair(f"PTU {tax.letter} {p.percent(tax.rate)}", p.number(tax.amount))
    if p.receipt.taxes:
        p.sheet.pair("SUMA PTU", p.number(p.receipt.tax))
        p.sheet.tell("tax", p.receipt.tax, p.number(p.receipt.tax))
    p.total(p.rng.choice(("SUMA PLN", "SUMA PLN", "SUMA: PLN", "Do zapłaty")))
    p.payment()
    if not p.date_told:
        p.meta()
    p.foot()


def brazilian(p: Printer) -> None:
    p.head()
    p.meta()
    p.sheet.middle(p.word("title"))
    p.sheet.row(("# COD DESC QTD UN VL UNIT", 0, "l"), ("VL TOTAL", 1, "r"))
    p.items_brazilian()
    p.sheet.rule()
    p.sheet.pair(p.word("count"), str(len(p.receipt.lines)))
    if p.receipt.discount or p.receipt.service:
        p.subtotal()
    p.extras()
    p.total()
    p.payment()
    p.foot()


def turkish(p: Printer) -> None:
    p.head()
    p.meta()
    p.sheet.space()
    p.items_turkish()
    p.sheet.rule("-")
    if p.receipt.discount:
        p.subtotal()
    p.extras()
    if p.receipt.taxes:
        p.sheet.pair("TOPKDV", "*" + p.number(p.receipt.tax))
        p.sheet.tell("tax", p.receipt.tax, p.number(p.receipt.tax))
    p.symbols, p.symbol = "total", "*"
    p.drawn["total"] = "TOPLAM"
    p.total()
    p.symbols = "never"
    p.payment()
    if p.chance(0.7):
        p.sheet.left(f"Z NO: {digits(p.rng, '{4}')}  EKÜ NO: 0001")
    p.sheet.middle("MF " + digits(p.rng, "{A}{A} {8}"))
    p.foot()
    p.sheet.truth["currency_seen"] = "language"


def india(p: Printer) -> None:
    """CGST and SGST, each half of the rate."""
    p.head()
    p.meta()
    p.sheet.rule()
    p.rng.choice((p.items_columns, p.items_below_columns))()
    p.sheet.rule()
    p.subtotal()
    p.extras()
    if not p.receipt.included:
        p.tax_lines()
    total = p.receipt.due.quantize(Decimal(1), "ROUND_HALF_UP")
    p.receipt.rounding = total - p.receipt.due
    if p.receipt.cash and p.receipt.paid < p.receipt.total:
        p.receipt.paid = p.receipt.total
    p.rounding()
    p.total(p.rng.choice(("Grand Total", "Net Amount", "Bill Amount", "TOTAL", "Net Payable", "Grand Total")))
    p.payment()
    p.foot()


def fuel(p: Printer) -> None:
    """A pump's receipt: volume, price of one litre or gallon, one sum."""
    r, sheet = p.receipt, p.sheet
    line = r.lines[0]
    p.head()
    p.meta()
    sheet.space()
    pump = p.rng.randrange(1, 13)
    volume, price = f"{p.quantity(line)} {line.unit}", f"{p.price_of(line)}/{line.unit}"
    if p.chance(0.5):
        sheet.pair(f"PUMP {pump:02d}  {line.name}" if p.place.words == "en" else f"#{pump} {line.name}", p.amount(line))
        sheet.left(f"  {volume} @ {price}" if p.chance(0.5) else f"  {volume} x {p.price_of(line)}")
        p.tell_line(line, quantity=True, price=True)
    else:
        words = r.words.columns
        sheet.pair(f"{'Pump' if p.place.words == 'en' else '#'} {pump}", line.name)
        sheet.pair({"en": "Volume"}.get(p.place.words, words[1]), volume)
        sheet.pair({"en": "Price"}.get(p.place.words, words[2]), price)
        sheet.pair({"en": "Fuel Sale"}.get(p.place.words, words[3]), p.money(line.amount))
        p.tell_line(line, quantity=True, price=True)
    sheet.rule()
    if not r.included and r.taxes:
        p.subtotal()
        p.tax_lines()
    p.rounding()
    p.total()
    if r.included:
        p.taxes_included()
    p.payment()
    p.foot()


def parking(p: Printer) -> None:
    """Two times and a fee."""
    r, sheet = p.receipt, p.sheet
    fee, start, end = r.words.parking
    p.head()
    if p.chance(0.5):
        sheet.middle(p.word("title"))
    sheet.left(f"{p.word('receipt')}: {digits(p.rng, '{8}')}")
    stay = dt.timedelta(minutes=p.rng.randrange(20, 400))
    if (r.when - stay).date() != r.when.date():
        stay = dt.timedelta(minutes=15)
    before, now = r.when - stay, p.date()
    then = dated(before, p.date_pattern, r.words.months)
    sheet.pair(f"{start}:", f"{then} {before:%H:%M}")
    sheet.pair(f"{end}:", f"{now} {r.when:%H:%M}")
    if p.chance(0.5):
        hours, rest = divmod(int(stay.total_seconds()) // 60, 60)
        sheet.pair({"en": "Duration"}.get(p.place.words, "T"), f"{hours}h {rest:02d}m")
    sheet.rule()
    p.sheet.pair(fee, p.amount(r.lines[0]))
    p.tell_line(r.lines[0], quantity=False, price=False)
    if not r.included and r.taxes:
        p.tax_lines()
    p.rounding()
    p.total()
    if r.included:
        p.taxes_included()
    p.payment()
    p.foot()


def hotel(p: Printer) -> None:
    """A folio: arrival and departure, every night and meal with its own day; the date of the bill is that of departure."""
    r, sheet = p.receipt, p.sheet
    nights = p.rng.randrange(1, 4)
    p.head("left" if p.chance(0.5) else "middle")
    sheet.middle(p.rng.choice(("GUEST FOLIO", "INFORMATION INVOICE", "INVOICE")), bold=True)
    sheet.left(f"Room {p.rng.randrange(101, 980)}   Guests {p.rng.randrange(1, 3)}")
    r.lines[0].name = p.rng.choice(("Valet parking", "Laundry", "Room service", "Spa access"))
    days = [r.when - dt.timedelta(days=n) for n in range(nights, -1, -1)]
    written = [dated(d, p.date_pattern, r.words.months) for d in days]
    sheet.pair("Arrival", written[0])
    sheet.pair("Departure", written[-1])
    sheet.pair(p.rng.choice(("Invoice date", "Date", "Printed")), p.date_as(written[-1]))
    sheet.rule("line")
    shown = written if max(sheet.width_of(w) for w in written) < sheet.inner * 0.3 else [f"{d:%d/%m}" for d in days]
    for at, line in enumerate(r.lines):
        day = shown[min(at, nights)]
        sheet.pair(f"{day}  {line.name}", p.money(line.amount))
        p.tell_line(line, quantity=False, price=False)
    sheet.rule("line")
    if not r.included or r.discount or r.service:
        p.subtotal()
    p.extras()
    if not r.included:
        p.tax_lines()
    p.rounding()
    p.total()
    if r.included:
        p.taxes_included()
    p.payment()
    p.foot()


def card_slip(p: Printer) -> None:
    """What a terminal prints: no items, one sum."""
    r, sheet = p.receipt, p.sheet
    r.cash = False
    r.rounding = Decimal(0)
    r.paid = r.total
    p.head()
    sheet.pair("TID", digits(p.rng, "{8}"))
    sheet.pair("MID", digits(p.rng, "{9}{3}"))
    sheet.pair(p.date(), p.time())
    sheet.left(p.word("card") + " " + digits(p.rng, "**** **** **** {4}"))
    sheet.pair("BATCH " + digits(p.rng, "{6}"), "TRACE " + digits(p.rng, "{6}"))
    sheet.rule()
    sheet.middle(p.rng.choice(("SALE", "PURCHASE")) if p.place.words == "en" else p.word("title"))
    p.symbols = "total"
    p.total(p.rng.choice(("AMOUNT", "TOTAL", "Total", "BASE")) if p.place.words == "en" else None)
    sheet.space()
    sheet.pair("APPR CODE", digits(p.rng, "{6}"))
    sheet.middle(p.rng.choice(("APPROVED", "NO SIGNATURE REQUIRED", "PIN VERIFIED")))
    p.foot()
    sheet.truth["payments"] = [r.total]


def pharmacy(p: Printer) -> None:
    """Numbers of prescriptions, discounts and points."""
    p.head("left" if p.chance(0.4) else "middle")
    p.meta()
    p.sheet.rule()
    p.rng.choice((p.items_plain, p.items_two_lines, p.items_counted))()
    p.sheet.rule()
    p.subtotal()
    p.extras()
    if not p.receipt.included:
        p.tax_lines()
    p.rounding()
    p.total()
    p.payment()
    if p.receipt.included:
        p.taxes_included()
    p.foot()


SHOPS = ("grocery", "restaurant", "pharmacy", "office")
EUROPE = ("DE", "AT", "CH", "FR", "BE", "ES", "IT", "NL", "PT", "SE", "NO", "GB", "IE")
LAYOUTS: dict[str, Layout] = {
    "grocery_us": Layout(grocery_us, ("grocery", "office", "pharmacy"), ("US", "CA", "JP", "PH"), laser=0.15),
    "grocery_included": Layout(
        grocery_included, ("grocery", "office", "pharmacy"), (*EUROPE, "AU", "MY", "SG", "ZA", "PH", "MX", "ID", "JP", "PL", "BR")
    ),
    "restaurant_us": Layout(restaurant_us, ("restaurant",), ("US", "CA")),
    "tax_invoice": Layout(tax_invoice, SHOPS, ("MY", "SG")),
    "invoice_wide": Layout(
        invoice_wide, ("office", "pharmacy"), ("US", "CA", "MY", "SG", "GB", "IN", "AU", "ZA", *EUROPE, "MX", "ID"), wide=True
    ),
    "bon_german": Layout(bon_german, ("grocery", "pharmacy", "office"), ("DE", "AT", "CH", "NL", "BE", "FR", "IE", "GB", "IT")),
    "ticket_columns": Layout(ticket_columns, SHOPS, laser=0.5),
    "bistro": Layout(bistro, ("restaurant",), (*EUROPE, "AU", "SG", "MY", "ZA", "MX", "ID", "PL", "BR", "TR", "JP", "PH")),
    "polish": Layout(polish, SHOPS, ("PL",), laser=0.1),
    "brazilian": Layout(brazilian, SHOPS, ("BR",), laser=0.1),
    "turkish": Layout(turkish, SHOPS, ("TR",), laser=0.1),
    "india": Layout(india, SHOPS, ("IN",)),
    "fuel": Layout(fuel, ("fuel",), laser=0.15),
    "parking": Layout(parking, ("parking",)),
    "hotel": Layout(hotel, ("restaurant",), ("US", "GB", "MY", "SG", "AU", "IE", "CA", "ZA"), laser=0.7),
    "card_slip": Layout(card_slip, ("grocery", "restaurant", "office"), laser=0.2),
    "pharmacy": Layout(pharmacy, ("pharmacy",)),
}
WEIGHTS = {
    "fuel": 0.5,
    "invoice_wide": 0.6,
    "grocery_included": 2,
    "parking": 0.4,
    "hotel": 0.4,
    "card_slip": 0.3,
    "polish": 3,
    "brazilian": 3,
    "turkish": 3,
    "india": 3,
    "tax_invoice": 4,
    "restaurant_us": 1.5,
    "grocery_us": 2,
}


def suited(place: Place) -> list[str]:
    """The layouts that registers of that country use."""
    return [name for name, layout in LAYOUTS.items() if not layout.places or place.code in layout.places]


def choose(rng: random.Random, place: Place) -> tuple[str, str]:
    """A layout and a kind of shop for it."""
    names = suited(place)
    name = rng.choices(names, [WEIGHTS.get(n, 1) for n in names])[0]
    return name, rng.choice(LAYOUTS[name].kinds)
