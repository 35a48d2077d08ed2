"""One receipt on one sheet: the parts that layouts are put together from, each noting the truth of what it prints."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.receipts.content import Line, Receipt, Tax, digits
from tests.receipts.places import Place
from tests.receipts.sheet import Sheet


def grouped(number: str, mark: str, indian: bool) -> str:
    """Digits in groups of three; the Indian way in groups of two above the thousands."""
    head, tail = number[:-3], number[-3:]
    size = 2 if indian else 3
    groups: list[str] = []
    while head:
        groups.insert(0, head[-size:])
        head = head[:-size]
    return mark.join([*groups, tail])


def dated(when: datetime, pattern: str, months: tuple[str, ...], *, upper: bool = False) -> str:
    """The date as that pattern writes it, with months named in the receipt's language."""
    name = months[when.month - 1]
    name = name.upper() if upper else name
    return when.strftime(pattern.replace("%o", name).replace("%O", name[:3]))


@dataclass
class Printer:
    """The choices of one register, drawn once a receipt, and its parts."""

    receipt: Receipt
    sheet: Sheet
    rng: random.Random
    drawn: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        place = self.place
        self.decimal, self.thousands = self.rng.choice(place.decimal), self.rng.choice(place.thousands)
        self.symbol = place.symbols[0] if self.rng.random() < 0.6 else self.rng.choice(place.symbols)
        self.symbols = self.rng.choice(("never", "total", "total", "always"))
        self.date_pattern = self.rng.choice(place.dates)
        self.flag = self.rng.choice(("", "", "letter", "T"))
        self.date_told = self.total_told = False

    @property
    def place(self) -> Place:
        return self.receipt.place

    def word(self, of: str) -> str:
        """A word of the receipt's language, the same all over one receipt."""
        if of not in self.drawn:
            self.drawn[of] = self.rng.choice(getattr(self.receipt.words, of))
        return self.drawn[of]

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def number(self, value: Decimal, decimals: int | None = None) -> str:
        """The bare number as the country writes it."""
        places = self.place.decimals if decimals is None else decimals
        whole, _, rest = f"{abs(value):.{places}f}".partition(".")
        text = grouped(whole, self.thousands, self.place.code == "IN") + (self.decimal + rest if rest else "")
        return "-" + text if value < 0 else text

    def money(self, value: Decimal, *, total: bool = False) -> str:
        """An amount; with the currency where this register prints it."""
        text = self.number(value)
        if self.symbols == "always" or (self.symbols == "total" and total):
            sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
            text = f"{text} {self.symbol.strip()}" if self.place.after else f"{sign}{self.symbol}{text}"
            text = sign + text if self.place.after else text
        return text

    def percent(self, rate: Decimal) -> str:
        text = f"{rate.normalize():f}"
        if self.chance(0.3) and self.place.words != "en":
            text = f"{rate:.2f}"
        return text.replace(".", self.decimal) + self.rng.choice(("%", " %", "%"))

    # -- the head

    def merchant(self, align: str = "middle") -> None:
        """The shop's name, on one to three lines, with its truth."""
        shop, company, sheet = self.receipt.shop, self.receipt.company, self.sheet
        full = shop + company
        also = [full]
        big = sheet.style.big if self.chance(0.5) else (1.0, 1.0)
        put = sheet.middle if align == "middle" else sheet.left
        words = full.split(" ")
        if align == "middle" and self.chance(0.25):
            title = full.upper() if self.chance(0.4) else full
            sheet.logo(title, sheet.style.size + self.rng.randrange(6, 18))
            sheet.truth.update(merchant=title, merchant_also=also)
            sheet.printed["merchant"] = [title]
            return
        if company and self.chance(0.25):  # the brand, then the company
            put(shop, bold=True, stretch=big)
            put(full + (f" ({digits(self.rng, '{6}-{A}')})" if self.place.code == "MY" else ""))
            sheet.tell("merchant", sheet.say(shop), shop)
            also.append(sheet.say(full))
        elif len(words) > 3 and self.chance(0.5):
            cut = len(words) - (2 if company else 1)
            put(" ".join(words[:cut]), bold=True, stretch=big)
            put(" ".join(words[cut:]), bold=True, stretch=big)
            sheet.tell("merchant", sheet.say(full), " ".join(words[:cut]), " ".join(words[cut:]))
        else:
            put(full, bold=self.chance(0.7), stretch=big)
            sheet.tell("merchant", sheet.say(full), *full.split(" "))
        sheet.truth["merchant_also"] = also

    def address(self, align: str = "middle") -> None:
        put = self.sheet.middle if align == "middle" else self.sheet.left
        street, town = self.rng.choice(self.place.streets), self.rng.choice(self.place.towns)
        if self.chance(0.4):
            put(f"{street}, {town}")
        else:
            put(street)
            put(town)
        if self.chance(0.7):
            number = digits(self.rng, self.place.phone)
            put(self.rng.choice(("Tel: {}", "Tel {}", "TEL. {}", "{}", "Phone {}")).format(number))
        for pattern in self.place.ids:
            if self.chance(0.6):
                put(digits(self.rng, pattern))

    def head(self, align: str = "middle") -> None:
        """Name, address and numbers, perhaps with a mark or a title above."""
        if align == "middle" and self.chance(0.15):
            self.sheet.emblem()
        if self.chance(0.08):
            self.sheet.middle(self.rng.choice(("*** COPY ***", self.word("title"), "* * *")))
        self.merchant(align)
        if self.chance(0.95):
            self.address(align)
        self.sheet.space()

    # -- date and numbers

    def date(self) -> str:
        """The date as printed, noted as the truth."""
        return self.date_as(dated(self.receipt.when, self.date_pattern, self.receipt.words.months, upper=self.chance(0.2)))

    def date_as(self, text: str) -> str:
        """Notes the date as printed in that way."""
        if not self.date_told:
            self.sheet.tell("date", self.receipt.when.date().isoformat(), text)
            self.date_told = True
        return text

    def time(self) -> str:
        pattern = self.rng.choice(
            ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M:%S%p", "%H:%M")
            if self.place.words == "en"
            else ("%H:%M", "%H:%M:%S", "%H.%M", "%H:%M")
        )
        return self.receipt.when.strftime(pattern)

    def meta(self) -> None:
        """Date, time, number of the receipt, who served: in one of the ways registers have."""
        sheet, number = self.sheet, digits(self.rng, self.rng.choice(("{6}", "{4}", "{2}-{6}", "{A}{A}{8}", "CS{7}", "00{4}/{4}")))
        label = self.word("receipt")
        match self.rng.randrange(7):
            case 0:
                sheet.pair(f"{self.date()} {self.time()}", f"{label} {number}")
            case 1:
                sheet.left(f"{self.word('date').rstrip(':')}: {self.date()} {self.time()}")
                sheet.left(f"{label}: {number}")
            case 2:
                sheet.pair(f"{label} : {number}", self.time())
                sheet.pair(
                    f"{self.word('date').rstrip(' :')} : {self.date()}",
                    f"{self.word('cashier')}: {self.rng.choice(('01', 'ANA', 'Sam', '3', 'LIM', 'K. M.'))}",
                )
            case 3:
                for name, value in (
                    (label, number),
                    (self.word("date").rstrip(" :"), self.date()),
                    (self.word("time").rstrip(" :"), self.time()),
                    (self.word("cashier"), str(self.rng.randrange(1, 40))),
                ):
                    if sheet.width_of(name) < 0.32 * sheet.inner:
                        sheet.row((name, 0, "l"), (": " + value, 0.34, "l"))
                    else:
                        sheet.left(f"{name}: {value}")
            case 4:
                sheet.middle(f"{self.date()}   {self.time()}")
                if self.chance(0.5):
                    sheet.middle(f"{label} {number}")
            case 5:
                sheet.left(f"{label} {number}  {self.word('cashier')} {self.rng.randrange(1, 20):02d}")
                sheet.left(f"{self.date()}  {self.time()}")
            case _:
                sheet.pair(self.word("date").rstrip(":") + ":" if self.chance(0.5) else self.word("date"), self.date())
                sheet.pair(label, number)
        if self.receipt.kind == "restaurant" and self.chance(0.6):
            sheet.left(f"{self.word('table')} {self.rng.randrange(1, 40)}")

    # -- the items

    def amount(self, line: Line) -> str:
        mark = {"": "", "letter": " " + line.letter, "T": " T"}[self.flag] if self.receipt.taxes else ""
        return self.money(line.amount) + mark

    def quantity(self, line: Line) -> str:
        if line.unit:
            return self.number(line.quantity, 3 if line.unit == "kg" else 2)
        return f"{line.quantity:f}"

    def tell_line(self, line: Line, *, quantity: bool, price: bool) -> None:
        """Notes an item, and prints its own discount below it."""
        printed = [line.name, self.number(line.amount)]
        self.sheet.tell_item(
            line.name,
            quantity=line.quantity if quantity else None,
            unit_price=line.unit_price if price else None,
            amount=line.amount,
            printed=printed,
        )
        if line.discount:
            self.sheet.pair("  " + self.word("discount"), self.money(line.discount))
            self.sheet.truth.setdefault("discounts", []).append(line.discount)

    def price_of(self, line: Line) -> str:
        decimals = 3 if line.unit in ("L", "gal") and self.place.decimals else None
        return self.number(line.unit_price, decimals)

    def name_amount(self, left: str, right: str) -> None:
        """An item's name that wraps where it is long; its amount on the first line, or on the last."""
        sheet = self.sheet
        rows = sheet.wrap(left, sheet.inner - sheet.width_of(right) - sheet.style.size * 0.6)
        if len(rows) == 1 and "dots" in self.drawn:
            gap = sheet.inner - sheet.width_of(rows[0]) - sheet.width_of(right)
            rows[0] += " " + "." * max(0, int(gap / sheet.width_of(".")) - 2)
        last = self.drawn.setdefault("wrap", self.rng.choice(("first", "last"))) == "last"
        for at, row in enumerate(rows):
            shown = at == (len(rows) - 1 if last else 0)
            cells = ((row, 0.0, "l"), (right, 1.0, "r")) if shown else ((row, 0.0, "l"),)
            sheet.row(*cells)

    def items_plain(self) -> None:
        """Name and amount; the reckoning of several pieces on a line below."""
        if self.chance(0.12):
            self.drawn["dots"] = "."
        times = self.rng.choice((" @ ", " x ", " X ", " @", "x"))
        below = self.chance(0.6)
        for line in self.receipt.lines:
            several = line.quantity != 1
            reckoned = f"  {self.quantity(line)}{line.unit and ' ' + line.unit}{times}{self.price_of(line)}"
            if several and not below:
                self.sheet.left(reckoned)
            self.name_amount(line.name, self.amount(line))
            if several and below:
                self.sheet.left(reckoned)
            self.tell_line(line, quantity=several, price=several)

    def items_counted(self) -> None:
        """The quantity before the name, as restaurants print; perhaps the price of one in brackets."""
        mark = self.rng.choice((" ", "x ", " x ", "  "))
        priced = self.chance(0.25)
        for line in self.receipt.lines:
            price = f" ({self.price_of(line)})" if priced and line.quantity != 1 else ""
            self.name_amount(f"{self.quantity(line)}{line.unit}{mark}{line.name}{price}", self.amount(line))
            self.tell_line(line, quantity=True, price=bool(price))

    def items_two_lines(self) -> None:
        """The name on a line of its own, its reckoning and amount on the next."""
        times = self.rng.choice((" x ", " @ ", " X ", "x", " * "))
        coded, first = self.chance(0.5), self.chance(0.3)
        for line in self.receipt.lines:
            head = f"{line.code} {line.name}" if coded and not first else line.name
            for row in self.sheet.wrap(head, self.sheet.inner):
                self.sheet.row((row, 0, "l"))
            unit = line.unit and " " + line.unit
            reckoned = f"{line.code if coded and first else ' '} {self.quantity(line)}{unit}{times}{self.price_of(line)}"
            self.sheet.pair(reckoned, self.amount(line))
            self.tell_line(line, quantity=True, price=True)

    def items_columns(self) -> None:
        """A table with heads, on narrow paper; names that are too wide wrap in their column."""
        order = self.rng.choice(("nqpa", "qna", "qnpa", "nqa"))
        name, *heads = self.receipt.words.columns
        values = {"q": self.quantity, "p": self.price_of, "a": self.amount}
        heads_of = dict(zip("qpa", heads, strict=True))
        behind = [c for c in order[order.index("n") :] if c != "n"]
        first = "q" in order[: order.index("n")]
        start = (max(self.sheet.width_of(t) for t in (heads_of["q"], "000")) / self.sheet.inner + 0.03) if first else 0.0
        columns = [[heads_of[c], *(values[c](line) for line in self.receipt.lines)] for c in behind]
        try:
            edges = self.sheet.edges(columns, least=start + 0.3)
        except ValueError:
            self.items_two_lines()
            return
        wide = max(self.sheet.width_of(t) for t in columns[0])
        room = edges[0] * self.sheet.inner - wide - self.sheet.style.size * 0.8 - start * self.sheet.inner
        if max(self.sheet.width_of(word) for text in (name, *(x.name for x in self.receipt.lines)) for word in text.split()) > room:
            self.items_two_lines()
            return
        lead = [(heads_of["q"], 0.0, "l")] if first else []
        self.sheet.row(*lead, (name, start, "l"), *((c[0], e, "r") for c, e in zip(columns, edges, strict=True)))
        self.sheet.rule()
        for at, line in enumerate(self.receipt.lines, 1):
            rows = self.sheet.wrap(line.name, room)
            lead = [(self.quantity(line), 0.0, "l")] if first else []
            self.sheet.row(*lead, (rows[0], start, "l"), *((c[at], e, "r") for c, e in zip(columns, edges, strict=True)))
            for row in rows[1:]:
                self.sheet.row((row, start, "l"))
            self.tell_line(line, quantity=True, price="p" in order)

    def items_below_columns(self) -> None:
        """Heads, then a name's line and a line of numbers beneath, or above: code, quantity, price, amount."""
        heads = self.receipt.words.columns[1:]
        values = (self.quantity, self.price_of, self.amount)
        columns = [[head, *(value(line) for line in self.receipt.lines)] for head, value in zip(heads, values, strict=True)]
        try:
            edges = self.sheet.edges(columns)
        except ValueError:
            self.items_two_lines()
            return
        room = edges[0] * self.sheet.inner - max(self.sheet.width_of(t) for t in columns[0]) - self.sheet.style.size
        coded = max(self.sheet.width_of(line.code) for line in self.receipt.lines) < room and self.chance(0.7)
        above = coded and self.chance(0.25)
        head = self.rng.choice(("Item", "Code", "No")) if self.place.words == "en" else "#"
        self.sheet.row(
            (head if self.sheet.width_of(head) < room else "", 0, "l"),
            *((c[0], e, "r") for c, e in zip(columns, edges, strict=True)),
        )
        self.sheet.rule()
        for at, line in enumerate(self.receipt.lines, 1):
            if not above:
                self.sheet.left(line.name)
            code = line.code if coded else ""
            self.sheet.row((code, 0, "l"), *((c[at], e, "r") for c, e in zip(columns, edges, strict=True)))
            if above:
                self.sheet.left(line.name)
            self.tell_line(line, quantity=True, price=True)

    def items_wide(self) -> None:
        """An invoice's table: number, description, quantity, unit price, amount, with ruled lines."""
        name, quantity, price, amount = self.receipt.words.columns
        self.sheet.rule("line")
        self.sheet.row(("#", 0, "l"), (name, 0.06, "l"), (quantity, 0.62, "r"), (price, 0.81, "r"), (amount, 1, "r"), bold=True)
        self.sheet.rule("line")
        for number, line in enumerate(self.receipt.lines, 1):
            for at, row in enumerate(self.sheet.wrap(line.name, 0.46 * self.sheet.inner)):
                rest = [
                    (str(number), 0.0, "l"),
                    (self.quantity(line), 0.62, "r"),
                    (self.price_of(line), 0.81, "r"),
                    (self.amount(line), 1.0, "r"),
                ]
                self.sheet.row((row, 0.06, "l"), *(rest if at == 0 else []))
            self.sheet.space(0.2)
            self.tell_line(line, quantity=True, price=True)

    def items_polish(self) -> None:
        """`Name A   2 x3,99 7,98A`, as fiscal printers of Poland have it."""
        for line in self.receipt.lines:
            right = f"{self.quantity(line)} x{self.price_of(line)} {self.number(line.amount)}{line.letter}"
            if self.sheet.width_of(f"{line.name} {right}") > self.sheet.inner * 0.97:
                self.sheet.left(line.name)
                self.sheet.row((right, 1, "r"))
            else:
                self.sheet.pair(line.name, right)
            self.tell_line(line, quantity=True, price=True)

    def items_brazilian(self) -> None:
        """Number, code and name on one line, `2 UN X 4,99` and the amount on the next."""
        for number, line in enumerate(self.receipt.lines, 1):
            self.sheet.left(f"{number:03d} {line.code} {line.name}")
            unit = line.unit.upper() or "UN"
            self.sheet.pair(f"    {self.quantity(line)} {unit} X {self.price_of(line)}", self.number(line.amount))
            self.tell_line(line, quantity=True, price=True)

    def items_turkish(self) -> None:
        """`NAME  %10  *12,50`; several pieces on the line above."""
        for line in self.receipt.lines:
            several = line.quantity != 1
            if several:
                self.sheet.left(f"{self.quantity(line)} {line.unit or 'AD'} X {self.price_of(line)}")
            right, star = f"%{line.rate:f}", f"*{self.number(line.amount)}"
            room = 0.58 * self.sheet.inner
            rows = self.sheet.wrap(line.name, room)
            for row in rows[:-1]:
                self.sheet.row((row, 0, "l"))
            self.sheet.row((rows[-1], 0, "l"), (right, 0.72, "r"), (star, 1, "r"))
            self.tell_line(line, quantity=several, price=several)

    # -- the sums

    def subtotal(self, value: Decimal | None = None) -> None:
        value = self.receipt.goods if value is None else value
        self.sheet.pair(self.word("subtotal"), self.money(value), **self.sums)
        self.sheet.tell("subtotal", value, self.number(value))

    @property
    def sums(self) -> dict[str, Any]:
        """Where words of the sums begin: at the margin, or indented."""
        start = self.drawn.setdefault("indent", self.rng.choice(("0", "0", "0.35", "0.12")))
        return {"at": float(start)}

    def extras(self) -> None:
        """Discount and service charge on the whole."""
        receipt, sheet = self.receipt, self.sheet
        if receipt.discount:
            sheet.pair(self.word("discount"), self.money(receipt.discount), **self.sums)
            sheet.truth.setdefault("discounts", []).append(receipt.discount)
        if receipt.service:
            sheet.pair(f"{self.word('service')} {self.percent(receipt.service_rate)}", self.money(receipt.service), **self.sums)
            sheet.truth.setdefault("charges", []).append(receipt.service)

    def rounding(self) -> None:
        if self.receipt.rounding or (self.place.cash_step and self.receipt.cash and self.chance(0.5)):
            value = self.receipt.rounding
            self.sheet.pair(self.word("rounding"), self.money(value), **self.sums)
            self.sheet.tell("rounding", value, self.number(abs(value)))

    def total(self, label: str | None = None) -> None:
        """The sum that is to be paid, as registers stress it."""
        label = label or self.word("total")
        code = self.place.currency
        bare = label.replace(":", "")
        if (
            self.chance(0.15)
            and not any(u in label.upper() for u in (code, "RM", "S$"))
            and self.place.currency in ("EUR", "MYR", "CHF", "SGD", "USD", "AUD")
        ):
            unit = "RM" if code == "MYR" else code
            bare = self.rng.choice((f"{bare} {unit}", f"{bare} ({unit})"))
        end = self.drawn.setdefault("colon", self.rng.choice(("", "", ":", " :")))
        stretch = self.sheet.style.big if self.chance(0.5) else (1.0, 1.0)
        self.sheet.pair(bare + end, self.money(self.receipt.total, total=True), bold=self.chance(0.7), stretch=stretch)
        self.sheet.tell("total", self.receipt.total, self.number(self.receipt.total))

    def tax_name(self, tax: Tax) -> str:
        if any(c.isdigit() for c in tax.label):
            return tax.label.replace(str(self.place.rates[0]), f"{tax.rate.normalize():f}") if "%" in tax.label else tax.label
        return tax.label + (" " + self.percent(tax.rate) if self.chance(0.6) else "")

    def tell_tax(self) -> None:
        self.sheet.tell("tax", self.receipt.tax, *(self.number(t.amount) for t in self.receipt.taxes))

    def tax_lines(self) -> None:
        for tax in self.receipt.taxes:
            self.sheet.pair(self.tax_name(tax), self.money(tax.amount), **self.sums)
        if self.receipt.taxes:
            self.tell_tax()

    def tax_table(self) -> None:
        """Rate, net, tax and gross by rate; perhaps their sums."""
        taxes, sheet = self.receipt.taxes, self.sheet
        if not taxes:
            return
        heads = [self.word("net"), taxes[0].label.split(" ")[0], self.word("gross")][: 3 if self.chance(0.6) else 2]
        lettered, mark = len(taxes) > 1 or self.flag == "letter", self.rng.choice(("=", " ", ": "))
        names = [(t.letter + mark if lettered else "") + self.percent(t.rate) for t in taxes]
        cells = [[self.number(v) for v in (t.net, t.amount, t.gross)] for t in taxes]
        if len(taxes) > 1 and self.chance(0.5):
            names.append(self.rng.choice(self.receipt.words.total).split(" ")[0])
            cells.append([self.number(sum(v, Decimal(0))) for v in zip(*((t.net, t.amount, t.gross) for t in taxes), strict=True)])
        sheet.grid(["%", *names], [heads, *cells], ruled=self.chance(0.4))
        self.tell_tax()

    def taxes_included(self) -> None:
        """How a receipt says what tax its prices hold: not at all, a line a rate, or a table."""
        if not self.receipt.taxes:
            return
        match self.rng.choice(("none", "lines", "lines", "table", "table")):
            case "lines":
                for tax in self.receipt.taxes:
                    if self.chance(0.5):
                        self.sheet.pair(f"{self.word('net')} {self.percent(tax.rate)}", self.money(tax.net))
                    self.sheet.pair(self.tax_name(tax), self.money(tax.amount))
                self.tell_tax()
            case "table":
                self.tax_table()

    # -- the end

    def payment(self) -> None:
        receipt, sheet = self.receipt, self.sheet
        if receipt.cash:
            sheet.pair(self.word("cash"), self.money(receipt.paid))
            if receipt.change or self.chance(0.6):
                sheet.pair(self.word("change"), self.money(receipt.change))
                sheet.tell("change", receipt.change, self.number(receipt.change))
        elif self.chance(0.85):
            sheet.pair(self.word("card"), self.money(receipt.total))
            if self.chance(0.5):
                self.slip()
        sheet.truth["payments"] = [receipt.paid]

    def slip(self) -> None:
        """What a card terminal adds."""
        rows = [
            ("**** **** **** " + digits(self.rng, "{4}"), ""),
            ("AID", digits(self.rng, "A0000000031{4}")),
            ("Auth code", digits(self.rng, "{6}")),
            ("Terminal", digits(self.rng, "{8}")),
            ("Ref", digits(self.rng, "{9}{3}")),
            ("TVR", "0000008000"),
        ]
        for left, right in self.rng.sample(rows, self.rng.randrange(1, 4)):
            self.sheet.pair(left, right)

    def foot(self) -> None:
        sheet = self.sheet
        sheet.space()
        if self.chance(0.35):
            count = sum(1 if line.unit else int(line.quantity) for line in self.receipt.lines)
            sheet.middle(f"{self.word('count')}: {count}")
        if not self.date_told:
            sheet.middle(f"{self.date()} {self.time()}")
        for note in self.rng.sample(self.receipt.words.notes, min(len(self.receipt.words.notes), self.rng.choice((0, 0, 1, 1, 2)))):
            sheet.middle(note)
        if self.chance(0.75):
            sheet.middle(self.word("thanks"))
        if self.chance(0.15):
            sheet.barcode()
        elif self.chance(0.08):
            sheet.square_code()
