"""Country, currency and date order of a receipt from what it prints: codes, symbols, tax numbers, company forms, words."""

from __future__ import annotations

import pytest

from workers.receipt import CERTAIN
from workers.small_model.countries import Place, currency_of, date_order, month_first_chance, place


def at(text: str) -> Place:
    return place(text.split("|"))


@pytest.mark.parametrize(
    ("text", "country", "currency"),
    [
        ("ACME TRADING SDN BHD|(123456-X)|TOTAL  12.50", "MY", "MYR"),
        ("ACME TRADING SDN.BHD.|TOTAL  12.50", "MY", "MYR"),
        ("ACME TRADING 5DN BHD|TOTAL  12.50", "MY", "MYR"),
        ("ACMETRADINGSDNBHD|TOTAL  12.50", "MY", "MYR"),
        ("ACME ENTERPRISE|43000 KAJANG, SELANGOR|TOTAL  12.50", "MY", "MYR"),
        ("KEDAI MAKAN|TOTAL  RM12.5O", "MY", "MYR"),
        ("Total (RM)  12.50|GST ID : 000123456789", "MY", "MYR"),
        ("Tel: +60 3-7875 1234|Total  12.50|Rounding Adj  0.00", "MY", "MYR"),
        ("MAKAN PTE LTD|UEN 201912345K|GST REG NO M2-1234567-8|TOTAL  $12.50", "SG", "SGD"),
        ("Singapore 238801|TOTAL  $12.50", "SG", "SGD"),
        ("PT MAJU JAYA|NPWP 01.234.567.8-901.000|TOTAL  25,000", "ID", "IDR"),
        ("Jl. Sudirman 12, Jakarta|Tunai  50.000|Kembali  25.000", "ID", "IDR"),
        ("Total  Rp 25.000", "ID", "IDR"),
        ("MANILA|VATable Sales  89.29|VAT-Exempt Sales  0.00|TOTAL  100.00", "PH", "PHP"),
        ("TIN: 123-456-789-00000|TOTAL  ₱100.00", "PH", "PHP"),
        ("Công ty TNHH Ăn Uống|Tổng cộng  125.000", "VN", "VND"),
        ("Bangkok|TAX ID 0105551234567|TOTAL  100.00", "TH", "THB"),
        ("GSTIN: 27AAPFU0939F1ZV|CGST 2.5%  5.00|Total  210.00", "IN", "INR"),
        ("ABC Pvt Ltd|Bengaluru - 560001|Total  Rs.210.00", "IN", "INR"),
        ("Karachi, Pakistan|NTN 1234567-8|Total  Rs 210", "PK", "PKR"),
        ("ABN 51 824 753 556|TOTAL  $12.00", "AU", "AUD"),
        ("Bakery Pty Ltd|Richmond VIC 3121|TOTAL  $12.00", "AU", "AUD"),
        ("GST No 12-345-678|Auckland|TOTAL  $12.00", "NZ", "NZD"),
        ("Springfield IL 62704|TOTAL  $6.79", "US", "USD"),
        ("(217) 555-0142|SALES TAX  0.40|TOTAL  $6.79", "US", "USD"),
        ("SHOP|TOTAL  USD 6.79|TAX  0.40", "US", "USD"),
        ("TORONTO ON M5V 2T6|HST 13%  0.65|TOTAL  $5.65", "CA", "CAD"),
        ("Montréal QC|TPS 123456789 RT0001|TVQ  1.00|TOTAL  11.00 $", "CA", "CAD"),
        ("OXXO|RFC ABC010203AB1|Total  $45.00|Efectivo  $50.00", "MX", "MXN"),
        ("CNPJ 12.345.678/0001-95|CUPOM FISCAL|TOTAL R$  45,00", "BR", "BRL"),
        ("CUIT 30-12345678-9|Consumidor Final|TOTAL  $ 450,00", "AR", "ARS"),
        ("RUC 20123456789|Lima|TOTAL  S/ 45.00", "PE", "PEN"),
        ("NIT 900.123.456-7|Bogotá|TOTAL  $ 45.000", "CO", "COP"),
        ("RUT 76.123.456-K|Santiago|Boleta Electrónica|TOTAL  $4.500", "CL", "CLP"),
        ("Bäckerei Müller GmbH|D-80331 München|Summe  12,50 €", "DE", "EUR"),
        ("USt-IdNr. DE123456789|Summe  12,50|MwSt 19%", "DE", "EUR"),
        ("ATU12345678|Wien|Summe  12,50 EUR", "AT", "EUR"),
        ("CHE-123.456.789 MWST|8001 Zürich|Total CHF  12.50", "CH", "CHF"),
        ("Boulangerie SARL|SIRET 123 456 789 00012|TOTAL TTC  4,40€", "FR", "EUR"),
        ("Tel 01.42.68.53.00|TVA 10%|TOTAL  4,40 EUR|Merci de votre visite", "FR", "EUR"),
        ("NIF: B12345678|Madrid|IVA incluido|TOTAL  4,40", "ES", "EUR"),
        ("P.IVA 01234567890|00184 ROMA (RM)|TOTALE EURO  4,40", "IT", "EUR"),
        ("DOCUMENTO COMMERCIALE|di cui IVA  0,40|TOTALE COMPLESSIVO  4,40", "IT", "EUR"),
        ("Contribuinte 501234567|1200-001 Lisboa|Total  4,40 €", "PT", "EUR"),
        ("Café de Dam|1012 JS Amsterdam|BTW 9%|Totaal  4,40", "NL", "EUR"),
        ("BE 0123.456.789|Antwerpen|Totaal  4,40 EUR|BTW 21%", "BE", "EUR"),
        ("VAT IE1234567FA|Dublin 2|TOTAL  €4.40", "IE", "EUR"),
        ("Y-tunnus 1234567-8|Helsinki|YHTEENSÄ  4,40", "FI", "EUR"),
        ("VAT Reg No 123 4567 89|LONDON SW1A 1AA|TOTAL  £4.40", "GB", "GBP"),
        ("ul. Prosta 1|00-001 Warszawa|NIP 525-12-34-567|PARAGON FISKALNY|SUMA PLN  14,40", "PL", "PLN"),
        ("Sp. z o.o.|Razem  14,40 zł", "PL", "PLN"),
        ("IČO 12345678|DIČ CZ12345678|Praha|Celkem  144,00 Kč", "CZ", "CZK"),
        ("NYUGTA|Budapest|Összesen  1 440 Ft", "HU", "HUF"),
        ("BON FISCAL|Cluj-Napoca|TOTAL LEI  44,00", "RO", "RON"),
        ("Org.nr 123 456 789 MVA|Oslo|Totalt  125,00|BankAxept", "NO", "NOK"),
        ("ICA Supermarket|Org.nr 556012-3456|Moms 12%|Totalt  125,00 SEK", "SE", "SEK"),
        ("CVR 12345678|København|Moms  25,00|I alt  125,00 kr", "DK", "DKK"),
        ("KDV %8  1,00|TOPLAM  13,50|NAKİT  20,00", "TR", "TRY"),
        ("VAT 4123456789|Cape Town|TOTAL  R125.00", "ZA", "ZAR"),
        ("Nairobi|P.O. Box 1|KRA PIN P012345678Z|TOTAL  KSh 450.00", "KE", "KES"),
        ("Dubai|TRN 100123456700003|TOTAL  AED 45.00", "AE", "AED"),
        ("Lagos, Nigeria|TOTAL  ₦4,500.00", "NG", "NGN"),
        ("Kowloon, Hong Kong|TOTAL  $45.00", "HK", "HKD"),
        ("東京都渋谷区|合計  ¥1,280|領収書", "JP", "JPY"),
        ("www.baeckerei-mueller.de|Summe  12,50|Vielen Dank", "DE", "EUR"),
        ("info@acme.com.my|TOTAL  12.50", "MY", "MYR"),
    ],
)
def test_places(text: str, country: str, currency: str) -> None:
    found = at(text)
    assert (found.country, found.currency) == (country, currency)
    assert found.country_confidence >= CERTAIN
    assert found.currency_confidence >= CERTAIN


@pytest.mark.parametrize(
    ("text", "currency", "line"),
    [
        ("SHOP|TOTAL  EUR 12,50", "EUR", 1),
        ("SHOP|Tea  €2,00|TOTAL  €2,00", "EUR", 2),
        ("SHOP|TOTAL EURO  12,50", "EUR", 1),
        ("SHOP|TOTALEUR  12,50", "EUR", 1),
        ("SHOP|£4.40", "GBP", 1),
        ("SHOP|CASH  (RM)|12.50", "MYR", 1),
        ("SHOP|AMOUNT  CHF|12.50", "CHF", 1),
        ("TOTAL CAD  62.43|$1.00", "CAD", 0),
        ("SHOP|12,50 zł", "PLN", 1),
    ],
)
def test_a_printed_currency_and_its_line(text: str, currency: str, line: int) -> None:
    found = at(text)
    assert (found.currency, found.currency_line) == (currency, line)
    assert found.currency_confidence >= CERTAIN


def test_a_currency_that_follows_from_the_country_has_no_line() -> None:
    found = at("ACME SDN BHD|TOTAL  12.50")
    assert (found.currency, found.currency_line) == ("MYR", None)


def test_a_bare_dollar_is_not_relied_on() -> None:
    found = at("SHOP|TOTAL  $5.00")
    assert found.currency == "USD"
    assert found.currency_confidence < CERTAIN
    assert found.month_first is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SHOP|TOTAL  12.00",
        "PEN  2.00|TOP  3.00|TRY ME  4.00",
        "Fr. 25.03.2018",
        "DRUM SET|HARM|12.00",
        "TRACE 001234|Extra +10%|+1 Tea",
        "ITEM C  12.00",
        "SAT 25/03/2018",
    ],
)
def test_nothing_is_made_of_nothing(text: str) -> None:
    found = at(text)
    assert found.currency is None or found.currency_confidence < CERTAIN
    assert found.country is None or found.country_confidence < CERTAIN


@pytest.mark.parametrize(
    ("text", "month_first"),
    [
        ("Springfield IL 62704|TOTAL  $6.79", True),
        ("ACME SDN BHD|TOTAL  12.50", False),
        ("Summe  12,50 €|MwSt", False),
        ("VATable Sales  89.29|Makati", True),
        ("TORONTO ON M5V 2T6|TOTAL  $5.65", None),
        ("SHOP|TOTAL  12.00", None),
    ],
)
def test_whether_the_month_comes_first(text: str, month_first: bool | None) -> None:
    assert at(text).month_first is month_first


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Summe|Rückgeld|Vielen Dank", "de"),
        ("Espèces|Rendu|Merci de votre visite", "fr"),
        ("Efectivo|Cambio|Gracias por su visita", "es"),
        ("Totale|Contanti|Resto|Grazie", "it"),
        ("Tunai|Baki|Terima kasih|Tarikh", "ms"),
        ("Totaal|Wisselgeld|Bedankt", "nl"),
        ("Razem|Gotówka|Dziękujemy", "pl"),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert at(text).languages[0] == language


@pytest.mark.parametrize(
    ("country", "order", "currency"),
    [
        ("US", "mdy", "USD"),
        ("PH", "mdy", "PHP"),
        ("MY", "dmy", "MYR"),
        ("HU", "ymd", "HUF"),
        ("HR", "dmy", "EUR"),
        ("GB", "dmy", "GBP"),
    ],
)
def test_what_the_cldr_says_of_countries(country: str, order: str, currency: str) -> None:
    assert (date_order(country), currency_of(country)) == (order, currency)


def test_canada_writes_it_both_ways() -> None:
    assert 0.3 < month_first_chance("CA") < 0.7
