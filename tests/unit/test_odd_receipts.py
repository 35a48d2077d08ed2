"""Receipts as they should not be: nothing that a page says breaks the reading, and no answer contradicts itself."""

from __future__ import annotations

import json
import random
import sys
from decimal import Decimal
from importlib.resources import files

import pytest
from pydantic import ValidationError

from workers.receipt import CERTAIN, OcrLine, OcrResult, ParsedReceipt, items_total
from workers.small_model.date_shapes import flat
from workers.small_model.dates import read_date
from workers.small_model.labels import kind_of, label_words
from workers.small_model.money import amounts
from workers.small_model.receipt_rules import parse_receipt

HEAD = ("BLUE CAFE LTD", "12 High Street", "Date 12/03/2019 14:22")


def parsed(*lines: str) -> ParsedReceipt:
    return parse_receipt(OcrResult(text="\n".join((*HEAD, *lines))))


@pytest.mark.parametrize("digits", [13, 29, 60, 230])
def test_a_number_that_no_amount_is_as_long_as_is_no_amount(digits: int) -> None:
    receipt = parsed("Tea 2.00", f"Cake {'9' * digits}.99", "TOTAL 2.00", "CASH " + "9" * digits + ".99", "CHANGE 0.00")
    assert receipt.total == Decimal("2.00")
    assert [i.amount for i in receipt.items] == [Decimal("2.00")]


def test_large_amounts_are_amounts() -> None:
    assert [a.value for a in amounts("Villa  999,999,999,999.99")] == [Decimal("999999999999.99")]


def test_a_time_without_its_colon_among_the_items_is_no_price() -> None:
    receipt = parsed("Tea  2.00", "12/03/2019 1422", "Cake  3.00", "TOTAL  5.00")
    assert [i.amount for i in receipt.items] == [Decimal("2.00"), Decimal("3.00")]
    assert receipt.balanced


@pytest.mark.parametrize(
    "below", [("TOTAL 10.00",), ("SUBTOTAL 10.00", "TAX 10% 1.00", "TOTAL 11.00"), ("TAX 10% 1.00", "TOTAL 11.00")]
)
def test_an_item_that_costs_as_much_as_those_above_it_is_an_item(below: tuple[str, ...]) -> None:
    receipt = parsed("Tea 2.00", "Cake 3.00", "Soup 5.00", *below)
    assert [i.amount for i in receipt.items] == [Decimal("2.00"), Decimal("3.00"), Decimal("5.00")]
    assert receipt.balanced


def test_sums_of_groups_below_the_items_are_no_items() -> None:
    receipt = parsed("Soup 5.00", "Fish 12.00", "Wine 6.50", "Food 17.00", "Drinks 6.50", "SUBTOTAL 23.50", "TOTAL 23.50")
    assert [i.description for i in receipt.items] == ["Soup", "Fish", "Wine"]
    assert receipt.balanced


def test_a_discount_counts_once_where_nothing_is_printed_below_the_items() -> None:
    receipt = parse_receipt(OcrResult(text="\n".join(("RECEIPT", *HEAD, "Tea 2.00", "Cake 3.00", "Discount -1.00"))))
    assert (receipt.items_sum, receipt.discounts) == (Decimal("4.00"), ())
    assert receipt.total is None or "total" in receipt.uncertain


def test_a_total_beside_an_unknown_word_is_no_item() -> None:
    receipt = parsed("Pan 45.49", "Tinta 134.70", "TOTAL FACTURA 180.19", "IVA 16% 24.85")
    assert [i.description for i in receipt.items] == ["Pan", "Tinta"]
    assert receipt.total == Decimal("180.19")


def test_every_word_of_the_vocabulary_can_be_met() -> None:
    vocabulary = json.loads(files("workers.small_model").joinpath("labels.json").read_text(encoding="utf-8"))
    assert [w for words in vocabulary.values() for w in words if label_words(w) != [w]] == []


@pytest.mark.parametrize(
    ("label", "kind"), [("TOTAL W/O GST", "subtotal"), ("Total w / o tax", "subtotal"), ("Total entregue", "tender")]
)
def test_short_words_of_labels(label: str, kind: str) -> None:
    assert kind_of(label) == kind


def test_two_taxes_on_the_same_goods_are_as_sure_as_one() -> None:
    receipt = parsed("Tea 100.00", "CGST 2.5% 2.50", "SGST 2.5% 2.50", "TOTAL 105.00")
    assert (receipt.tax, receipt.balanced) == (Decimal("5.00"), True)
    assert "tax" not in receipt.uncertain


@pytest.mark.parametrize(
    ("lines", "included"),
    [
        (("Tea 10.00", "Cake 13.80", "TOTAL 23.80", "VAT 19% 20.00 3.80 23.80"), True),
        (("Tea 10.00", "Cake 13.80", "SUBTOTAL 23.80", "TOTAL 23.80", "VAT 19% 3.80"), True),
        (("Tea 10.00", "Cake 13.80", "TOTAL EXCL VAT 20.00", "VAT 19% 3.80", "TOTAL 23.80"), True),
        (("Tea 10.00", "Cake 10.00", "VAT 19% 3.80", "TOTAL 23.80"), False),
        (("Tea 10.00", "Cake 10.00", "SUBTOTAL 20.00", "VAT 19% 3.80", "ROUNDING 0.02", "TOTAL 23.78"), False),
    ],
)
def test_whether_the_prices_hold_the_tax_is_told_by_the_sums(lines: tuple[str, ...], included: bool) -> None:
    receipt = parsed(*lines)
    assert [line.included for line in receipt.tax_lines] == [included]
    assert receipt.tax_base is not None
    assert receipt.tax_base.amount == Decimal("20.00")
    assert receipt.balanced


def test_rounding_has_the_sign_by_which_the_items_come_to_the_total() -> None:
    assert parsed("Tea 10.02", "Cake 5.00", "ROUNDING 0.02", "TOTAL 15.00").rounding == Decimal("-0.02")
    assert parsed("Tea 10.03", "Cake 5.00", "ROUNDING 0.02", "TOTAL 15.05").rounding == Decimal("0.02")


@pytest.mark.parametrize(
    ("lines", "base"),
    [
        (("Tea 100.00", "SUBTOTAL 100.00", "SERVICE CHARGE 10% 10.00", "GST 6% 6.60", "TOTAL 116.60"), "110.00"),
        (("Tea 100.00", "SUBTOTAL 100.00", "GST 6% 6.00", "SERVICE CHARGE 10% 10.00", "TOTAL 116.00"), "100.00"),
        (("Tea 10.00", "SUBTOTAL 10.00", "COUPON -2.00", "TAX 8% 0.64", "TOTAL 8.64"), "8.00"),
    ],
)
def test_the_tax_base_is_what_the_rate_makes_the_tax_of(lines: tuple[str, ...], base: str) -> None:
    receipt = parsed(*lines)
    assert receipt.tax_base is not None
    assert receipt.tax_base.amount == Decimal(base)


def test_marks_of_direction_hide_no_amount() -> None:
    receipt = parsed("\u200fTea 2.00\u200e", "\u202aTOTAL\u202c \u200f2.\u00ad00\u200e")
    assert (receipt.total, [i.description for i in receipt.items]) == (Decimal("2.00"), ["Tea"])


@pytest.mark.parametrize("confidence", [float("nan"), -0.1, 1.5])
def test_a_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValidationError):
        OcrLine(text="Tea", confidence=confidence, box=(0, 0, 1, 1))


def test_a_tax_base_that_nothing_tells_is_absent() -> None:
    assert parsed("TOTAL 6.50", "MwSt 19% 1.04").tax_base is not None  # 5.46 and its 19 % are the total
    assert parsed("Tea 3.20", "TOTAL 24.65", "VAT 9% 1.87").tax_base is None


def test_flat_text_is_as_long_as_the_line() -> None:
    assert [c for c in map(chr, range(sys.maxunicode + 1)) if len(flat(c)) != 1] == []


def test_a_turkish_label_does_not_move_the_date() -> None:
    found = read_date(["MİGROS TİC.", "İŞLEM TARİHİ 12/03/2019"])
    assert found is not None
    assert (found.value.isoformat(), found.text) == ("2019-03-12", "12/03/2019")


def test_a_refund_takes_its_tax_back() -> None:
    receipt = parsed("Tea -10.00", "SUBTOTAL -10.00", "TAX 10% -1.00", "TOTAL -11.00", "VISA -11.00")
    assert (receipt.subtotal, receipt.tax, receipt.total) == (Decimal("-10.00"), Decimal("-1.00"), Decimal("-11.00"))
    assert receipt.balanced
    assert receipt.uncertain == ()


def test_nothing_to_pay_is_a_total() -> None:
    receipt = parsed("Tea 10.00", "Discount -10.00", "TOTAL 0.00")
    assert (receipt.is_receipt, receipt.total) == (True, Decimal("0.00"))


def test_a_total_in_doubt_among_items_is_a_receipt_still() -> None:
    receipt = parsed("Tea 10.00", "TOTAL GBP 10.00", "Converted: TOTAL EUR 11.80")
    assert (receipt.is_receipt, receipt.total) == (True, Decimal("10.00"))


def test_a_name_that_ends_like_a_unit_is_no_unit() -> None:
    item = parsed("3 x 1.00 Tea 3.00", "TOTAL 3.00").items[0]
    assert (item.description, item.quantity, item.unit_price, item.amount) == ("Tea", 3, Decimal("1.00"), Decimal("3.00"))


def spoilt(rng: random.Random) -> list[str]:
    """Lines that no till prints: mixed up, turned round, doubled, and with signs of other scripts."""
    lines = [
        *HEAD,
        "Tea 2 x 2.50 5.00",
        "Discount -1.00",
        "SUBTOTAL 4.00",
        "TAX 10% 0.40",
        "ROUNDING 0.02",
        "TOTAL 4.40",
        "CASH 5.00",
        "CHANGE 0.60",
    ]
    odd = [
        "",
        " ",
        "TOTAL NaN",
        "TOTAL -4.40",
        "TOTAL (4.40)",
        f"TAX {'7' * 50}.00",
        "\u200f٤.٤٠",
        "0 x 0.00 0.00",
        "GST 99.9% 1.00 1.00",
        "12/03/2019 1422",
        "½ 3.00",
        "1 " * 150,
    ]
    for _ in range(rng.randint(1, 8)):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[at], lines[other] = (
            lines[other],
            rng.choice((lines[at], lines[at][::-1], lines[at].replace(".", rng.choice(",- ")), rng.choice(odd))),
        )
        lines.insert(at, rng.choice((*odd, lines[other])))
    return lines[rng.randrange(3) :]


@pytest.mark.parametrize("seed", range(150))
def test_no_answer_contradicts_itself(seed: int) -> None:
    lines = spoilt(random.Random(seed))
    receipt = parse_receipt(OcrResult(text="\n".join(lines)))
    given = {
        name
        for name in ("merchant", "date", "currency", "subtotal", "tax", "rounding", "total", "change")
        if getattr(receipt, name) is not None
    }
    assert set(receipt.evidence) == given | ({"items"} if receipt.items else set())
    assert set(receipt.uncertain) == {name for name, found in receipt.evidence.items() if found.confidence < CERTAIN}
    parts = (
        *receipt.items,
        *receipt.charges,
        *receipt.discounts,
        *receipt.tax_lines,
        *receipt.payments,
        *receipt.evidence.values(),
    )
    assert all(part.line is None or part.line < len(lines) for part in parts)
    assert not {i.line for i in receipt.items} & {c.line for c in (*receipt.charges, *receipt.discounts)}
    assert receipt.items_sum == (items_total(receipt.items) if receipt.items else None)
    assert not (receipt.balanced and any(" come to " in p or " sum to " in p for p in receipt.problems))
    assert ParsedReceipt.model_validate_json(receipt.model_dump_json()).model_dump(mode="json") == receipt.model_dump(mode="json")
