"""Receipts by rules, on texts of many countries that no renderer of ours made; what is not printed stays None."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from workers.receipt import OcrLine, OcrResult, ParsedReceipt
from workers.small_model.labels import kind_of
from workers.small_model.money import amounts, style_of, trailing, without_point
from workers.small_model.receipt_rules import parse_receipt


def parsed(*lines: str) -> ParsedReceipt:
    return parse_receipt(OcrResult(text="\n".join(lines)))


def rows(receipt: ParsedReceipt) -> list[tuple[Any, ...]]:
    return [(i.description, i.quantity, i.unit_price, i.amount) for i in receipt.items]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("Bananas 2.31 lb  1.59", ["1.59"]),
        ("TOTAL  $37.32", ["37.32"]),
        ("1'729.06", ["1729.06"]),
        ("1.234,56 €", ["1234.56"]),
        ("1,599.50CHF", ["1599.50"]),
        ("Umbrella  ¥1,280", ["1280"]),
        ("Nasi goreng  25,000", ["25000"]),
        ("Trade discount  -4.60", ["-4.60"]),
        ("coupon  4.60-", ["-4.60"]),
        ("-$4.60", ["-4.60"]),
        ("Milk  3.50 T", ["3.50"]),
        ("2 PC x 3.50  7.00 SR", ["3.50", "7.00"]),
        ("12. 50", ["12.50"]),
        ("9.00 - 18.30", []),
        ("03/14/2026  17:42", []),
        ("21.05.2026 10:16", []),
        ("Tel (937) 555-0142", []),
        ("TAX 7.25%", []),
        ("Reg 03", []),
    ],
)
def test_amounts(line: str, values: list[str]) -> None:
    assert [a.value for a in amounts(line)] == [Decimal(v) for v in values]


def test_only_amounts_that_end_a_line_are_taken_off_its_label() -> None:
    label, found = trailing("Water 0,51 bottle  3,90 A *")
    assert (label, [a.value for a in found]) == ("Water 0,51 bottle", [Decimal("3.90")])


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("SUB TOTAL", "subtotal"),
        ("Sub-Total", "subtotal"),
        ("Total Sales (Excluding GST)", "subtotal"),
        ("Zwischensumme", "subtotal"),
        ("TAX 7.25%", "tax"),
        ("VAT @ 20% included", "tax"),
        ("inkl. MwSt 19%", "tax"),
        ("Total GST", "tax"),
        ("SALESTAX", "tax"),
        ("GRANDTOTAL", "total"),
        ("TOTALUSD", "total"),
        ("Amount due", "total"),
        ("Total Sales (Inclusive GST)", "total"),
        ("Summe EUR", "total"),
        ("Service charge 18%", "charge"),
        ("Rounding Adj", "rounding"),
        ("Total Rounded", "total"),
        ("TOTALSALES(INCL.GST)", "total"),
        ("T0TAL", "total"),
        ("Net à payer", "total"),
        ("Totalt (4 Artikler)", "total"),
        ("Zw.-Summe", "subtotal"),
        ("Meals Tax 8.5%:", "tax"),
        ("Trade discount", "discount"),
        ("CHANGE", "change"),
        ("PARA ÜSTÜ", "change"),
        ("Visa ****4417", "tender"),
        ("Gegeben Bar", "tender"),
        ("Total Qty", "info"),
        ("Total savings", "info"),
        ("GST ID", "info"),
        ("Total Cereal", None),
        ("Taxi", None),
        ("Chocolate bar", None),
        ("Tip Top Bread", None),
        ("Green Tea", None),
        ("", None),
    ],
)
def test_labels(label: str, kind: str | None) -> None:
    assert kind_of(label) == kind


def test_malaysia_article_number_above_the_name_and_rounding() -> None:
    receipt = parsed(
        "KEDAI ALAT RUMAH SEPAKAT SDN BHD",
        "TAX INVOICE",
        "Date : 15/01/2019 11:05:16 AM",
        "Description  Qty  Price  Amount",
        "000000782  2  9.49  18.98 SR",
        "PAINT ROLLER 9 INCH",
        "Total Exclude GST:  17.91",
        "Total GST @6%:  1.07",
        "Total Inclusive GST:  18.98",
        "Rounding Adj:  0.02",
        "TOTAL PAYABLE RM:  19.00",
        "CASH  50.00",
        "CHANGE  31.00",
    )
    assert rows(receipt) == [("PAINT ROLLER 9 INCH", 2, Decimal("9.49"), Decimal("18.98"))]
    assert (receipt.merchant, receipt.date, receipt.currency) == ("KEDAI ALAT RUMAH SEPAKAT SDN BHD", "2019-01-15", "MYR")
    assert (receipt.subtotal, receipt.tax, receipt.rounding) == (Decimal("17.91"), Decimal("1.07"), Decimal("0.02"))
    assert (receipt.total, receipt.change, receipt.balanced) == (Decimal("19.00"), Decimal("31.00"), True)
    assert [(p.method, p.amount) for p in receipt.payments] == [("CASH", Decimal("50.00"))]
    assert receipt.items[0].tax_class == "SR"
    assert receipt.evidence["total"].text == "TOTAL PAYABLE RM:  19.00"
    assert receipt.uncertain == ()


def test_indonesia_whole_amounts_and_counts_in_front() -> None:
    receipt = parsed(
        "Nasi Liwet Komplit  75,000",
        "1 x Ayam Betutu  125,000",
        "1 Es Alpukat  37,000",
        "1 Lemon Tea  24,000",
        "Sub-Total  261,000",
        "Service  13,050",
        "PB1  27,405",
        "Rounding  -55",
        "Grand Total  301,400",
    )
    assert rows(receipt)[2] == ("Es Alpukat", 1, None, 37000)
    assert [c.amount for c in receipt.charges] == [13050]
    assert (receipt.rounding, receipt.tax, receipt.total, receipt.balanced) == (-55, 27405, 301400, True)
    assert {"no merchant could be read", "no date could be read"} <= set(receipt.problems)


def test_united_states_reckoning_below_its_item_and_tax_on_a_part() -> None:
    receipt = parsed(
        "TRADER OAK'S",
        "Springfield IL 62704",
        "TOMATOES CRUSHED  $1.59",
        "ORGANIC BANANAS  $0.87",
        "3EA  @ 0.29/EA",
        "PAPER PLATES  $4.00",
        "SUBTOTAL  $6.46",
        "TAX 8.25% ON $4.00  $0.33",
        "TOTAL  $6.79",
        "CASH  $20.00",
        "CHANGE  $13.21",
        "ITEMS 5  05-04-2026 11:02AM",
    )
    assert ("ORGANIC BANANAS", 3, Decimal("0.29"), Decimal("0.87")) in rows(receipt)
    assert receipt.tax_base is not None
    assert (receipt.tax_base.amount, receipt.tax_base.rate) == (Decimal("4.0"), Decimal("0.0825"))
    assert (receipt.date, receipt.balanced, receipt.problems) == ("2026-05-04", True, ())


def test_germany_tax_table_and_deposit() -> None:
    receipt = parsed(
        "REWE",
        "Hauptstr. 5",
        "BIO BANANEN  1,99 B",
        "JOGHURT  3,00 B",
        "4 Stk x  0,75",
        "PFAND  0,25 A *",
        "WASCHMITTEL  8,99 A",
        "SUMME  EUR  14,23",
        "Geg. EC-Cash  EUR  14,23",
        "Steuer %  Netto  Steuer  Brutto",
        "A= 19,0%  7,76  1,48  9,24",
        "B= 7,0%  4,66  0,33  4,99",
        "Gesamtbetrag  12,42  1,81  14,23",
        "Datum: 04.11.2025",
    )
    assert rows(receipt)[1] == ("JOGHURT", 4, Decimal("0.75"), Decimal("3.0"))
    assert (receipt.tax, receipt.total, receipt.tax_base) == (Decimal("1.81"), Decimal("14.23"), None)
    assert (receipt.merchant, receipt.date, receipt.currency, receipt.balanced) == ("REWE", "2025-11-04", "EUR", True)


def test_france_tax_included_below_the_total() -> None:
    receipt = parsed(
        "BOULANGERIE MARTIN",
        "Le 12/09/2024 a 08:14",
        "BAGUETTE TRADITION  2 x 1,30  2,60€",
        "CAFE  1,80€",
        "TOTAL TTC  4,40€",
        "DONT TVA 5,5%  0,23€",
        "CB  4,40€",
    )
    assert rows(receipt) == [("BAGUETTE TRADITION", 2, Decimal("1.3"), Decimal("2.6")), ("CAFE", None, None, Decimal("1.8"))]
    assert (receipt.date, receipt.tax, receipt.total, receipt.balanced) == ("2024-09-12", Decimal("0.23"), Decimal("4.4"), True)


def test_weights_and_promotions() -> None:
    receipt = parsed("TESCO", "MILK 2L  £1.65", "APPLES 0.456 kg @ £2.10/kg  £0.96", "Promo  £-1.00", "TOTAL  £1.61", "CARD  £1.61")
    assert rows(receipt) == [
        ("MILK 2L", None, None, Decimal("1.65")),
        ("APPLES", Decimal("0.456"), Decimal("2.1"), Decimal("0.96")),
        ("Promo", None, None, -Decimal("1.0")),
    ]
    assert receipt.balanced


def test_a_label_whose_amount_is_on_the_next_line() -> None:
    assert parsed("SHOP", "Tea  2.00", "TOTAL", "$2.00").total == Decimal("2.0")


def test_items_that_do_not_add_up_are_told() -> None:
    receipt = parsed("SHOP", "Tea  2.00", "Cake  3.00", "TOTAL  6.00")
    assert not receipt.balanced
    assert "the items with charges and tax come to 5.00, the printed total is 6.00 (1.00 more)" in receipt.problems


def test_a_subtotal_that_is_no_sum_is_told_although_the_total_follows_from_it() -> None:
    receipt = parsed("SHOP", "Tea  2.00", "SUBTOTAL  3.00", "TAX 10%  0.30", "TOTAL  3.30")
    assert not receipt.balanced
    assert [p for p in receipt.problems if "subtotal" in p] == ["the items sum to 2.00, the printed subtotal is 3.00 (1.00 more)"]


def test_a_printed_product_that_is_wrong_is_told() -> None:
    receipt = parsed("SHOP", "Tea 3 x 2.00  7.00", "TOTAL  7.00")
    assert "`Tea`: 3 x 2.00 is not the printed 7.00" in receipt.problems
    assert not receipt.balanced


def test_a_total_that_is_not_printed_is_reckoned_where_payment_and_sums_agree_and_said_to_be() -> None:
    receipt = parsed("SHOP", "Tea  2.00", "TAX  0.20", "CASH  5.00", "CHANGE  2.80")
    assert (receipt.total, receipt.evidence["total"].how) == (Decimal("2.20"), "reckoned")


def test_nothing_is_guessed_when_nothing_tells_the_total() -> None:
    receipt = parsed("SHOP", "Tea  2.00", "Cake  3.10", "TAX  0.20", "CASH  50.00")
    assert receipt.is_receipt
    assert receipt.total is None or "total" in receipt.uncertain


def test_a_misread_digit_is_put_right_where_count_and_price_and_sum_prove_it() -> None:
    receipt = parsed("SHOP", "Tea  2  3.90  7.30", "Cake  4.50", "SUBTOTAL  12.30", "TAX 10%  1.23", "TOTAL  13.53", "VISA  13.53")
    assert rows(receipt)[0] == ("Tea", 2, Decimal("3.90"), Decimal("7.80")) or receipt.items[0].amount == Decimal("7.80")
    assert receipt.evidence["items"].how == "repaired"
    assert receipt.balanced


def test_a_total_whose_decimal_point_was_lost_is_put_right_by_the_payment() -> None:
    receipt = parsed("BAR", "2 Cana  3,00", "1 Tinto  2,20", "TOTAL  520", "ENTREGADO  10,00", "CAMBIO  4,80")
    assert (receipt.total, receipt.evidence["total"].how) == (Decimal("5.20"), "repaired")


@pytest.mark.parametrize(
    ("line", "value"), [("TOTAL  1250", "12.50"), ("TOTAL  12 50", "12.50"), ("TOTAL  l2 5O", "12.50"), ("TOTAL  12", None)]
)
def test_a_lost_point(line: str, value: str | None) -> None:
    assert without_point(line) == (None if value is None else Decimal(value))


@pytest.mark.parametrize(
    ("lines", "mark"), [(["Tea 2.50", "TOTAL 2.50"], "."), (["Tee 2,50", "1.234,00"], ","), (["Nasi 25.000"], None)]
)
def test_the_style_of_amounts(lines: list[str], mark: str | None) -> None:
    assert style_of(lines).mark == mark


@pytest.mark.parametrize(
    "lines",
    [
        ["LUNCH MENU", "Soup of the day  6.50", "Burger  15.50"],
        ["CITY LIBRARY", "Saturday  10.00 - 16.00", "Book exhibition: 12.05 to 30.06, room 2.14"],
        ["Dear Mr Smith,", "your total balance is 45.00 on 3 May.", "Best regards"],
        ["Hello"],
    ],
)
def test_what_is_no_receipt_is_called_so(lines: list[str]) -> None:
    receipt = parsed(*lines)
    assert not receipt.is_receipt
    assert receipt.items == ()
    assert len(receipt.problems) == 1


def test_an_empty_text_is_no_receipt() -> None:
    assert parsed("").problems == ("no text could be read in the image",)


def test_lines_read_with_little_confidence_are_named() -> None:
    line = [OcrLine(text=t, confidence=c, box=(0, 0, 1, 1)) for t, c in (("SHOP", 0.9), ("Tea  2.00", 0.5), ("TOTAL  2.00", 0.9))]
    receipt = parse_receipt(OcrResult(text="ignored", lines=tuple(line)))
    assert "`Tea  2.00` was read with little confidence (0.50)" in receipt.problems
