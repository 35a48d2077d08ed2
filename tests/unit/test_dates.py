"""The date of a receipt: shapes of many countries, what OCR makes of them, and which of several dates is meant."""

from __future__ import annotations

from datetime import date

import pytest

from workers.receipt import CERTAIN
from workers.small_model.countries import Place
from workers.small_model.dates import FoundDate, read_date

TODAY = date(2026, 6, 30)
US = Place(country="US", country_confidence=0.95, month_first=True, month_first_chance=0.97)
MY = Place(country="MY", country_confidence=0.95, month_first=False, month_first_chance=0.02)


def read(*lines: str, place: Place | None = None, confidences: list[float] | None = None) -> FoundDate | None:
    return read_date(lines, place=place, confidences=confidences, today=TODAY)


def value(found: FoundDate | None) -> str | None:
    return found.value.isoformat() if found else None


def in_country(code: str, *, month_first: bool = False) -> Place:
    return Place(country=code, country_confidence=0.95, month_first=month_first, month_first_chance=0.97 if month_first else 0.02)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("25/03/2018", "2018-03-25"),
        ("25-03-2018 14:02", "2018-03-25"),
        ("25.03.2018", "2018-03-25"),
        ("25/3/2018", "2018-03-25"),
        ("5/13/2019", "2019-05-13"),
        ("25-03-18", "2018-03-25"),
        ("25.03.18 14:02", "2018-03-25"),
        ("25/03/18  14:02:11", "2018-03-25"),
        ("25/03/20 18:02", "2020-03-25"),
        ("25/03/2018(Sun)", "2018-03-25"),
        ("DATE:05/03/18(MON) 12:30", "2018-03-05"),
        ("2018/03/25", "2018-03-25"),
        ("2018-03-25T14:02:11", "2018-03-25"),
        ("2018-03-25 14:02", "2018-03-25"),
        ("2018.03.25.", "2018-03-25"),
        ("2018. 3. 25.", "2018-03-25"),
        ("25 / 03 / 2018", "2018-03-25"),
        ("25 - 03 - 2018", "2018-03-25"),
        ("25. 03. 2018", "2018-03-25"),
        ("Date 25 03 2018", "2018-03-25"),
        ("Date: 20180325", "2018-03-25"),
        ("20180325 14:02", "2018-03-25"),
        ("DATE:25/03/2018TIME14:02", "2018-03-25"),
        ("Date25/03/2018Time02:02PM", "2018-03-25"),
        ("25/03/201814:02:11", "2018-03-25"),
        ("25/03/2018140211", "2018-03-25"),
        ("2018-03-2514:02:11", "2018-03-25"),
        ("25/03/1814:02", "2018-03-25"),
        ("14:02 25/03/2018", "2018-03-25"),
        ("14:02:1125/03/2018", None),
        ("Mon 25/03/2018", "2018-03-25"),
        ("Sunday, 25/03/2018", "2018-03-25"),
        ("(25/03/2018)", "2018-03-25"),
        ("*25/03/2018*", "2018-03-25"),
        ("0003 #25 25/03/2018 R01", "2018-03-25"),
    ],
)
def test_figures(line: str, expected: str | None) -> None:
    found = read(line)
    assert value(found) == expected
    assert found is None or found.confidence >= CERTAIN


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("25 Mar 2018", "2018-03-25"),
        ("25-MAR-2018", "2018-03-25"),
        ("25-Mar-18 2:02 PM", "2018-03-25"),
        ("12 JAN'19", "2019-01-12"),
        ("12-JAN-19", "2019-01-12"),
        ("12JAN2019", "2019-01-12"),
        ("12JAN19 14:02", "2019-01-12"),
        ("Jan 12, 2019", "2019-01-12"),
        ("January 12 2019", "2019-01-12"),
        ("JAN.12.2019", "2019-01-12"),
        ("Jan12,2019", "2019-01-12"),
        ("MAR252018", "2018-03-25"),
        ("2019 Jan 12", "2019-01-12"),
        ("2019-JAN-12", "2019-01-12"),
        ("12th January 2019", "2019-01-12"),
        ("1st of March 2019", "2019-03-01"),
        ("Sat Jan 12 14:02:11 2019", "2019-01-12"),
        ("Sat Jan 12 14:02:11 MYT 2019", "2019-01-12"),
        ("12 Sept 2019", "2019-09-12"),
        ("12. März 2019", "2019-03-12"),
        ("12. Mrz. 2019", "2019-03-12"),
        ("12. Dezember 2019", "2019-12-12"),
        ("5 août 2019", "2019-08-05"),
        ("1er février 2019", "2019-02-01"),
        ("12 déc. 2019", "2019-12-12"),
        ("12 de marzo de 2019", "2019-03-12"),
        ("12 ene 2019", "2019-01-12"),
        ("12-ABR-2019", "2019-04-12"),
        ("12 de março de 2019", "2019-03-12"),
        ("12 FEV 2019", "2019-02-12"),
        ("12 gennaio 2019", "2019-01-12"),
        ("12 LUG 2019", "2019-07-12"),
        ("12 mei 2019", "2019-05-12"),
        ("12 augustus 2019", "2019-08-12"),
        ("12. maj 2019", "2019-05-12"),
        ("12 oktober 2019", "2019-10-12"),
        ("12 marca 2019", "2019-03-12"),
        ("12 października 2019", "2019-10-12"),
        ("12. října 2019", "2019-10-12"),
        ("12 Ogos 2019", "2019-08-12"),
        ("12 Mac 2019", "2019-03-12"),
        ("12 Agustus 2019", "2019-08-12"),
        ("12 Mei 2019", "2019-05-12"),
        ("12 Ağustos 2019", "2019-08-12"),
        ("12 Şubat 2019", "2019-02-12"),
        ("2019. március 12.", "2019-03-12"),
        ("12 martie 2019", "2019-03-12"),
        ("12. maaliskuuta 2019", "2019-03-12"),
        ("12 Disyembre 2019", "2019-12-12"),
        ("ngày 25 tháng 3 năm 2018", "2018-03-25"),
        ("2018年3月25日", "2018-03-25"),
    ],
)
def test_names_of_months(line: str, expected: str) -> None:
    found = read(line)
    assert value(found) == expected
    assert found is not None
    assert found.confidence >= CERTAIN


@pytest.mark.parametrize(
    ("country", "line", "expected"),
    [
        ("TH", "25/03/2561 14:02", "2018-03-25"),
        ("TH", "25/03/61 14:02", "2018-03-25"),
        ("TH", "25/03/2018", "2018-03-25"),
        ("TW", "107/03/25 14:02", "2018-03-25"),
        ("TW", "107-03-25", "2018-03-25"),
        ("JP", "R1.5.13 14:02", "2019-05-13"),
        ("JP", "H30.3.25", "2018-03-25"),
        ("JP", "18/03/05 14:02", "2018-03-05"),
        ("HU", "2018.03.05.", "2018-03-05"),
        ("SE", "2018-03-05", "2018-03-05"),
        ("HR", "12. lis 2019", "2019-10-12"),
        ("PL", "12 lis 2019", "2019-11-12"),
    ],
)
def test_calendars_and_orders_of_countries(country: str, line: str, expected: str) -> None:
    languages = {"HR": ("hr",), "PL": ("pl",)}.get(country, ())
    found = read(line, place=Place(country=country, country_confidence=0.95, month_first=False, languages=languages))
    assert value(found) == expected
    assert found is not None
    assert found.confidence >= CERTAIN


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("25/O3/2O18", "2018-03-25"),
        ("Date: 25/O3/2OI8", "2018-03-25"),
        ("Date: l2/l2/2018", "2018-12-12"),
        ("Date: l2.ll.2018", "2018-11-12"),
        ("Date : 3|/|2/20|8", "2018-12-31"),
        ("Date: 2S/03/2018", "2018-03-25"),
        ("Date: 25/0B/2018 14:02", "2018-08-25"),
        ("Date 25-N0V-18", "2018-11-25"),
        ("Date 0CT 25 2018", "2018-10-25"),
        ("Date 25 5EP 2018", "2018-09-25"),
        ("Date 25 JU1 2018", "2018-07-25"),
        ("Date 25,03,2018", "2018-03-25"),
        ("Date 25.03,2018", "2018-03-25"),
        ("Date 25/03.2018", "2018-03-25"),
        ("Date 25 03.2018", "2018-03-25"),
        ("Date 25/ 03/2018", "2018-03-25"),
        ("Date 25103/2018 14:02", "2018-03-25"),
        ("Date 25/0312018 14:02", "2018-03-25"),
        ("Date 25/03/2018 14;02", "2018-03-25"),
        ("Date；25／03／2018", "2018-03-25"),
        ("Date 25—03—2018", "2018-03-25"),
        ("DATE : 25/03/2018  TlME : 14:O2", "2018-03-25"),
    ],
)
def test_what_ocr_does_to_dates(line: str, expected: str | None) -> None:
    found = read(line, place=MY)
    assert value(found) == expected
    assert found is None or found.confidence >= CERTAIN


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("25/03/218", "2018-03-25"),
        ("25/03/20018", "2018-03-25"),
        ("2510312018", "2018-03-25"),
        ("25/03/20 18", "2018-03-25"),
        ("25-NCV-2018", "2018-11-25"),
        ("25/03/2081", None),
        ("25/03/2027", "2027-03-25"),
        ("20180325", "2018-03-25"),
        ("107/03/25", "2018-03-25"),
        ("Date: 12/13/2018", "2018-12-13"),
        ("9 set 12 pz", "2012-09-09"),
    ],
)
def test_what_can_be_read_but_not_relied_on(line: str, expected: str | None) -> None:
    found = read(line, place=MY)
    assert found is not None
    assert expected is None or value(found) == expected
    assert found.confidence < 0.65
    assert found.problem


@pytest.mark.parametrize(
    ("lines", "place", "expected", "sure"),
    [
        (["05/02/2026"], US, "2026-05-02", True),
        (["05/02/2026"], MY, "2026-02-05", True),
        (["05/02/2026"], Place(), "2026-02-05", True),
        (["05/05/2026"], Place(month_first_chance=0.5), "2026-05-05", True),
        (["05/02/2025"], Place(month_first_chance=0.45, country="CA", country_confidence=0.9), "2025-02-05", False),
        (["05.02.2026"], Place(), "2026-02-05", True),
        (["02/05/2018", "DUE 25/05/2018"], Place(country="CA", country_confidence=0.9, month_first_chance=0.5), "2018-05-02", True),
        (["02/05/2018", "DUE 05/25/2018"], Place(country="CA", country_confidence=0.9, month_first_chance=0.5), "2018-02-05", True),
        (["02/05/2018", "5 Feb 2018 14:02"], MY, "2018-02-05", True),
        (["07/05/2026", "05 Jul"], US, "2026-05-07", True),  # the seventh of July is yet to come
        (["12/07/2026"], US, "2026-12-07", False),  # both are
        (["05-02-18"], MY, "2018-02-05", True),
        (["18-02-05"], MY, None, True),
        (["Sun 05/02/2017"], Place(month_first_chance=0.4, country="CA"), "2017-02-05", True),
        (["Tue 05/02/2017"], Place(month_first_chance=0.4, country="CA"), "2017-05-02", True),
        (["05/02/2017 (TUE) 14:02"], Place(month_first_chance=0.4, country="CA"), "2017-05-02", True),
        (["mardi 02/05/2017"], Place(month_first_chance=0.6, country="CA"), "2017-05-02", True),
        (["31/02/2026"], MY, None, True),
        (["13/13/2018"], MY, None, True),
    ],
)
def test_the_order_of_day_and_month(lines: list[str], place: Place, expected: str | None, sure: bool) -> None:
    found = read(*lines, place=place)
    if expected is not None:
        assert value(found) == expected
        assert found is not None
        assert (found.confidence >= CERTAIN) is sure
        assert sure or found.problem
    else:
        assert found is None or found.value.year in (2005, 2018)


def test_what_can_be_read_two_ways_is_told() -> None:
    found = read("05/02/2025", place=Place(country="CA", country_confidence=0.9, month_first_chance=0.5))
    assert found is not None
    assert found.problem == "the date 05/02/2025 can be read two ways"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Valid until 31/12/2025", "25/03/2018 14:02"], "2018-03-25"),
        (["25/03/2018", "Due date: 25/04/2018"], "2018-03-25"),
        (["Due date: 25/04/2018", "Date: 25/03/2018"], "2018-03-25"),
        (["Date: 25/03/2018  Due: 25/04/2018"], "2018-03-25"),
        (["Invoice No: 123456  Date: 25/03/2018"], "2018-03-25"),
        (["INV-20170101-0003", "25/03/2018"], "2018-03-25"),
        (["INV/2017/01/01/0003", "25/03/2018"], "2018-03-25"),
        (["Doc No : 01-02-2017-33  Date : 25/03/2018"], "2018-03-25"),
        (["Tel: 03-7875 1234 Fax: 03-78 12 2014", "25/03/2018 10:11 AM"], "2018-03-25"),
        (["Member since 01/02/2003", "25/03/2018"], "2018-03-25"),
        (["Best before 01.02.2019", "25.03.18 09:11"], "2018-03-25"),
        (["Promo 01/03/2018 - 31/03/2018", "25/03/2018 14:02"], "2018-03-25"),
        (["Offer valid 01/04/18 to 30/04/18", "25/03/18 14:02"], "2018-03-25"),
        (["Software v1.2.03 (11/02/2015)", "25/03/2018 14:02"], "2018-03-25"),
        (["PTU No. 1234 Date Issued 01/02/2015 Valid Until 01/31/2020", "03/25/2018 14:02"], "2018-03-25"),
        (["Check in 20/03/2018", "Check out 25/03/2018", "Date: 25/03/2018"], "2018-03-25"),
        (["Drop off: 25 Mar 2018  Ready: 28 Mar 2018"], "2018-03-25"),
        (["Datum: 25.03.2018 Lieferdatum: 24.03.2018"], "2018-03-25"),
        (["Fecha: 25/03/2018", "Vencimiento: 24/04/2018"], "2018-03-25"),
        (["Data 25/03/2018", "Scadenza 24/04/2018"], "2018-03-25"),
        (["Tarikh : 25/03/2018", "Sah sehingga 30/04/2018"], "2018-03-25"),
        (["Tgl 25-03-2018", "Berlaku s/d 30-04-2018"], "2018-03-25"),
        (["TARİH : 25/03/2018", "SAAT : 14:02"], "2018-03-25"),
        (["Le 25/03/2018 à 14:02", "Valable jusqu'au 30/04/2018"], "2018-03-25"),
        (["Kampanj t.o.m. 2018-04-30", "2018-03-25 14:02"], "2018-03-25"),
        (["Date", "25/03/2018", "01/02/2017"], "2018-03-25"),
        (["Date  Time  Cashier", "25/03/2018  14:02  Ann"], "2018-03-25"),
        (["11/02/2017", "Expiry Date:", "25/03/2019"], "2017-02-11"),
        (["25/03/2018 14:02", "VISA **** 1234 EXP 12/20", "25/03/18 14:03"], "2018-03-25"),
        (["24/03/2018 23:58", "25/03/2018 00:01", "24/03/2018"], "2018-03-24"),
        (["IP 192.168.1.20", "25/03/2018"], "2018-03-25"),
        (["IBAN DE12 5001 0517 0648 4898 90", "25.03.2018"], "2018-03-25"),
        (["DOB: 11/02/1994", "25/03/2018"], "2018-03-25"),
        (["Return by 24/04/2018", "SALE 25/03/2018"], "2018-03-25"),
        (["Nächste Inspektion: 25.03.2020", "Rechnungsdatum 25.03.2018"], "2018-03-25"),
        (["Invoice date 25/03/2018", "Order date 20/03/2018", "Delivery 22/03/2018"], "2018-03-25"),
        (["Warranty until 25/03/2020", "Sold 25/03/2018"], "2018-03-25"),
        (["Est. 12/03/1995", "25/03/2018"], "2018-03-25"),
        (["GST ID 000123456789", "25/03/2018 14:02"], "2018-03-25"),
        (["12.50 13.10 18.00", "2 x 1.50  3.00", "25/03/2018 14:02"], "2018-03-25"),
    ],
)
def test_which_of_several_dates(lines: list[str], expected: str) -> None:
    found = read(*lines)
    assert value(found) == expected
    assert found is not None
    assert found.confidence >= CERTAIN


@pytest.mark.parametrize(
    "line",
    [
        "Valid until 31.12.2025",
        "Expiry date 31/12/2025",
        "Gültig bis 31.12.2025",
        "Member since 01/02/2003",
        "Tel 555-01-42",
        "Tel 03-7875 1234",
        "192.168.1.20",
        "v1.2.03",
        "12.50 13.10",
        "1/2 12.50",
        "1.234.567,89",
        "5 x 12.50  62.50",
        "GST ID 000123456789",
        "DE 123 456 789",
        "4111 1111 1111 1111",
        "10:00 - 22:00",
        "EXP 12/20",
        "2 for 3.50",
        "31/02/2018",
        "",
        "TOTAL",
    ],
)
def test_what_is_no_date_of_a_receipt(line: str) -> None:
    assert read(line) is None


def test_a_date_beside_a_rival_is_less_sure_and_told() -> None:
    alone, beside = read("11/02/2018"), read("11/02/2018", "25/03/2018")
    assert alone is not None
    assert beside is not None
    assert beside.confidence < alone.confidence
    assert beside.problem == "the receipt prints two dates: 25/03/2018 and 11/02/2018"


def test_only_the_date_of_something_else_is_not_relied_on() -> None:
    found = read("Delivery date: 25/03/2018")
    assert found is not None
    assert found.confidence < CERTAIN
    assert found.problem == "the date 25/03/2018 may be that of something else than the purchase"


def test_a_date_in_the_future_is_told() -> None:
    found = read("25/03/2027 14:02")
    assert found is not None
    assert found.confidence < CERTAIN
    assert found.problem == "the date 25/03/2027 is in the future"


def test_where_it_stands_and_how_it_was_read() -> None:
    found = read("SHOP", "Date: 25/03/2018 14:02  #12")
    assert found is not None
    assert (found.line, found.text) == (1, "25/03/2018")


def test_doubt_of_the_ocr_is_doubt_of_the_date() -> None:
    sure, doubtful = (read("SHOP", "25/03/2018", confidences=[0.9, c]) for c in (0.95, 0.4))
    assert sure is not None
    assert doubtful is not None
    assert doubtful.confidence < sure.confidence


def test_a_date_printed_twice_is_surer_than_once_read_badly() -> None:
    once, twice = read("25103/2018"), read("25103/2018", "25103/2018 14:02")
    assert once is not None
    assert twice is not None
    assert twice.confidence > once.confidence


def test_the_place_is_read_off_the_lines() -> None:
    assert value(read("Springfield IL 62704", "TOTAL  $6.79", "05/02/2026")) == "2026-05-02"
    assert value(read("KEDAI BUKU SDN BHD", "TOTAL  RM 6.79", "05/02/2026")) == "2026-02-05"


def test_no_lines_hold_no_date() -> None:
    assert read() is None
