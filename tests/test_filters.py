"""The filter language: what it keeps, what it refuses, and what it says then."""

import pickle
import time
from typing import Any

import pytest

from prequery import filters
from prequery.errors import RecipeError

FIELDS = {
    "id": "string",
    "language": "string",
    "language_score": "float64",
    "words": "int32",
    "repeats": "int64",
    "response_loop": "bool",
    "finish_reason": "string",
    "messages": "list",
}
CHOICES = {"finish_reason": ("eos_token", "stop_sequence", "length")}
ROW: dict[str, Any] = {
    "id": "f00d-0",
    "language": "en",
    "language_score": 0.5,
    "words": 12,
    "repeats": 0,
    "response_loop": False,
    "finish_reason": "eos_token",
}
NULLS: dict[str, Any] = dict.fromkeys(ROW) | {"id": "f00d-1"}


def parse(expression: str) -> filters.Filter:
    return filters.parse(expression, "r.yaml, line 9, filters", FIELDS, CHOICES)


def batch_of(*rows: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in ROW}


def result(expression: str, row: dict[str, Any]) -> bool | None:
    """Evaluate for one row: whether it and its opposite keep the row tells null from false."""
    (kept,) = parse(expression).keep(batch_of(row))
    (opposite,) = parse(f"not ({expression})").keep(batch_of(row))
    assert not (kept and opposite)
    return True if kept else (False if opposite else None)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('language == "en"', True),
        ("language == 'en'", True),
        ('language != "en"', False),
        ('"en" == language', True),
        ('language in ["de", "en"]', True),
        ('language not in ["de", "en"]', False),
        ('language in ["de"]', False),
        ("words in [-12, 12.0]", True),
        ("response_loop in [false]", True),
        ("words == 12", True),
        ("words == 12.0", True),
        ("words < 12", False),
        ("words <= 12", True),
        ("words > 11.5", True),
        ("words >= 1.3e1", False),
        ("0 < words < 12", False),
        ("0 < words <= 12 != 13", True),
        ("0 <= repeats < words", True),
        ("not response_loop", True),
        ("not not response_loop", False),
        ("response_loop == false", True),
        ("(words > 1) == (repeats == 0)", True),
        ('words > 99 or language == "en" and repeats == 0', True),
        ('(words > 99 or language == "en") and repeats == 1', False),
        ('not words > 99 and language == "en"', True),
        ("words + 2 * 3 == 18", True),
        ("(words + 2) * 3 == 42", True),
        ("words - 2 - 3 == 7", True),
        ("words / 2 / 3 == 2", True),
        ("-words + 1 == -11", True),
        ("- -words == 12", True),
        ("words / language_score == 24", True),
        ("words / repeats > 0", None),
        ("words * 1e308 > 0", None),
        ("language == null", False),
        ("language != null", True),
        ("null != language", True),
        (r'language == "\e\n"', True),
        (r'language == "\""', False),
        ("language == 'in'", False),
        ('language == "中文" or\n\twords > 1', True),
        ('finish_reason == "eos_token"', True),
        ('finish_reason in ["stop_sequence", "length"]', False),
        (" and ".join(["words > 1"] * 140), True),
        ("words" + " + 1" * 400 + " == 412", True),
    ],
)
def test_an_expression_is_true_false_or_null(expression: str, expected: bool | None) -> None:
    assert result(expression, ROW) is expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("words > 1", None),
        ("words != 1", None),
        ("words == repeats", None),
        ("words + 1 > 1", None),
        ("1 - words > 1", None),
        ("-words > 1", None),
        ("0 < words < 1", None),
        ('language in ["en"]', None),
        ('language not in ["en"]', None),
        ("response_loop", None),
        ("not response_loop", None),
        ("words == null", True),
        ("words != null", False),
        ("words + 1 == null", True),
        ("words == null or words > 1", True),
        ("words > 1 or words == null", True),
        ("words != null and words > 1", False),
        ("words > 1 and words == null", None),
        ("words > 1 or words > 2", None),
    ],
)
def test_null_is_not_known(expression: str, expected: bool | None) -> None:
    assert result(expression, NULLS) is expected


def test_a_filter_keeps_rows_in_order_and_says_what_it_reads() -> None:
    step = parse('  language == "en" and words / 2 > 1 ')
    rows = [ROW | {"words": words} for words in (1, 3, 5)]

    assert step.text == 'language == "en" and words / 2 > 1'
    assert step.reads == {"language", "words"}
    assert step.keep(batch_of(*rows, NULLS)) == [False, True, True, False]
    assert step.keep(batch_of()) == []
    assert step.keep({"language": ["en"], "words": [9]}) == [True]


def test_a_filter_survives_pickling() -> None:
    step = parse("not (1 < words / 2 + 1 <= 9) or words in [1, 2] or response_loop")

    copy = pickle.loads(pickle.dumps(step))

    assert copy == step
    assert copy.keep(batch_of(ROW)) == step.keep(batch_of(ROW)) == [False]


def test_each_row_is_rejected_by_its_first_filter() -> None:
    steps = [parse('language == "en"'), parse("words > 5"), parse("not response_loop")]
    rows = [
        ROW,
        ROW | {"words": 5},
        ROW | {"language": "de", "words": 5},
        ROW | {"response_loop": True},
        NULLS,
    ]

    assert filters.apply(steps, batch_of(*rows)) == [
        None,
        "words > 5",
        'language == "en"',
        "not response_loop",
        'language == "en"',
    ]
    assert filters.apply([], batch_of(*rows)) == [None] * 5


KNOWN = ", ".join([*FIELDS, "true", "false", "null"])
EXAMPLE = 'write it as in: language == "en" and instruction_words >= 3'
NO_TOKEN = "use fields, numbers, texts in quotes and operators"
COMPARE = "write a comparison, such as: x > 0"
# Expression, what happened, at which character (from 1), what to do.
REFUSED: list[tuple[str, str, int, str]] = [
    ('langauge == "en"', "unknown field 'langauge'", 1, "did you mean 'language'? known: " + KNOWN),
    ("response_loop == True", "unknown field 'True'", 18, "did you mean 'true'? known: " + KNOWN),
    ("qqq > 1", "unknown field 'qqq'", 1, "known: " + KNOWN),
    (
        "messages == null",
        "the field 'messages' is list, which no filter can compare",
        1,
        "filter by a text, a number or true and false",
    ),
    (
        "words > 1 and language > 3",
        "`language` is a text and `3` is a number: they are never equal",
        24,
        "compare values of one kind",
    ),
    (
        'words in [1, "2"]',
        "`words` is a number and `\"2\"` is a text: they are never equal",
        7,
        "compare values of one kind",
    ),
    (
        "response_loop == 1",
        "`response_loop` is true or false and `1` is a number: they are never equal",
        15,
        "compare values of one kind",
    ),
    (
        'language >= "en"',
        "`language` is a text, which has no order",
        10,
        "compare it with ==, != or in [...]",
    ),
    (
        "response_loop < true",
        "`response_loop` is true or false, which has no order",
        15,
        "compare it with ==, != or in [...]",
    ),
    ("words < null", "`<` cannot compare with null", 7, "only == and != ask for null"),
    (
        "words in [1, null]",
        "`null` is no value, which no list can hold",
        14,
        "list texts or numbers; ask for null apart: x == null or x in [...]",
    ),
    (
        "words in [1, repeats]",
        "`repeats` is a number, which no list can hold",
        14,
        "list texts or numbers; ask for null apart: x == null or x in [...]",
    ),
    (
        'finish_reason == "eos"',
        "'finish_reason' is never 'eos'",
        18,
        "did you mean 'eos_token'? known: eos_token, stop_sequence, length",
    ),
    (
        '"end" != finish_reason',
        "'finish_reason' is never 'end'",
        1,
        "known: eos_token, stop_sequence, length",
    ),
    (
        'finish_reason in ["length", "stop"]',
        "'finish_reason' is never 'stop'",
        29,
        "did you mean 'stop_sequence'? known: eos_token, stop_sequence, length",
    ),
    ("words", "a filter is true or false, and `words` is a number", 1, COMPARE),
    ("words + 1", "a filter is true or false, and `words + 1` is a number", 1, COMPARE),
    ("null", "a filter is true or false, and `null` is no value", 1, COMPARE),
    ("words > 1 and language", "`and` joins what is true or false, and `language` is a text", 15,
     COMPARE),
    ("not words", "`not` turns what is true or false, and `words` is a number", 5, COMPARE),
    ("language + 1 > 2", "only numbers are calculated with, and `language` is a text", 1, COMPARE),
    ("words * null > 2", "only numbers are calculated with, and `null` is no value", 9, COMPARE),
    ("-language > 2", "only a number has a sign, and `language` is a text", 2, COMPARE),
    ("1 < 2", "this filter reads no field: it keeps every row or none", 1,
     "compare one of " + ", ".join(FIELDS)),
    ("true", "this filter reads no field: it keeps every row or none", 1,
     "compare one of " + ", ".join(FIELDS)),
    ("", "the filter ends where a field, a number, a text or `(` is expected", 1, EXAMPLE),
    ("words >", "the filter ends where a field, a number, a text or `(` is expected", 8, EXAMPLE),
    ("(words > 1", "the filter ends where `)` is expected", 11, EXAMPLE),
    ("words > 1)", "found ')' where an operator or the end is expected", 10, EXAMPLE),
    ("words > 1 words", "found 'words' where an operator or the end is expected", 11, EXAMPLE),
    ("words in [1", "the filter ends where `]` is expected", 12, EXAMPLE),
    ("words in (1, 2)", "found '(' where `[` is expected", 10, EXAMPLE),
    ("words in []", "found ']' where a field, a number, a text or `(` is expected", 11, EXAMPLE),
    ("words not 3", "found '3' where `in` is expected", 11, EXAMPLE),
    ("words ** 9 > 1", "found '*' where a field, a number, a text or `(` is expected", 8, EXAMPLE),
    ("words // 2 > 1", "found '/' where a field, a number, a text or `(` is expected", 8, EXAMPLE),
    ("words = 1", "unexpected '='", 7, "compare with `==`"),
    ("words > 1 && words < 3", "unexpected '&'", 11, "write `and`"),
    ("words > 1 || words < 3", "unexpected '|'", 11, "write `or`"),
    ("!response_loop", "unexpected '!'", 1, "write `not`, or `!=`"),
    ('language == "en', "unexpected '\"'", 13, "end the text with the same quote"),
    ("words > 9" + "9" * 400, "this number is too large", 9, "write at most 1e308"),
    ("words > 1e999", "this number is too large", 9, "write at most 1e308"),
    ("words.__class__ == 1", "unexpected '.'", 6, NO_TOKEN),
    ("len(language) > 3", "unknown field 'len'", 1, "known: " + KNOWN),
    ("words(1) > 3", "found '(' where an operator or the end is expected", 6, EXAMPLE),
    ("[w for w in words]", "found '[' where a field, a number, a text or `(` is expected", 1,
     EXAMPLE),
    ('f"{words}" == language', "unknown field 'f'", 1, "known: " + KNOWN),
    ("lambda: words", "unexpected ':'", 7, NO_TOKEN),
    ("words if 1 else words", "found 'if' where an operator or the end is expected", 7, EXAMPLE),
    ("words > 1; words", "unexpected ';'", 10, NO_TOKEN),
    ("words > 1 # yes", "unexpected '#'", 11, NO_TOKEN),
    ("words > \0", "unexpected '\\x00'", 9, NO_TOKEN),
]  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "what", "at", "fix"), REFUSED, ids=[row[0][:40] for row in REFUSED]
)
def test_a_refused_expression_is_shown_with_a_caret(
    expression: str, what: str, at: int, fix: str
) -> None:
    with pytest.raises(RecipeError) as error:
        parse(expression)

    shown = expression.replace("\0", " ")[:80]
    assert str(error.value) == (
        f"{what}\n"
        f"    {shown}\n"
        f"    {' ' * (at - 1)}^\n"
        f"  where: r.yaml, line 9, filters, character {at}\n"
        f"  fix:   {fix}"
    )


def test_a_long_expression_is_shown_around_its_error() -> None:
    with pytest.raises(RecipeError) as error:
        parse("words > 1 and " * 50 + "wrds > 1" + " or words > 1" * 50)

    shown = ("words > 1 and " * 5)[-60:] + "wrds > 1 or words > 1"[:20]
    assert str(error.value) == (
        "unknown field 'wrds'\n"
        f"    {shown}\n"
        f"    {' ' * 60}^\n"
        "  where: r.yaml, line 9, filters, character 701\n"
        f"  fix:   did you mean 'words'? known: {KNOWN}"
    )


@pytest.mark.parametrize("opening", ["(", "not ", "- "])
def test_deep_nesting_is_refused(opening: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse(opening * 31 + "words")

    line = (opening * 31 + "words")[max(0, 30 * len(opening) - 60) :][:80]
    assert str(error.value) == (
        "this filter is nested more than 30 deep\n"
        f"    {line}\n"
        f"    {' ' * min(60, 30 * len(opening))}^\n"
        f"  where: r.yaml, line 9, filters, character {30 * len(opening) + 1}\n"
        "  fix:   write several filters"
    )


def test_thirty_levels_are_allowed() -> None:
    assert parse("(" * 29 + "words > 1" + ")" * 29).keep(batch_of(ROW)) == [True]
    assert parse("words * " + "-" * 30 + "1 == 12").keep(batch_of(ROW)) == [True]


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 10_000 + "words" + ")" * 10_000,
        "not " * 10_000 + "response_loop",
        "words > " + "9" * 1_000_000,
        '"' * 100_001,
        "words + " * 100_000,
    ],
    ids=["parentheses", "not", "a long number", "quotes", "a long sum"],
)
def test_a_hostile_expression_is_refused_at_once(expression: str) -> None:
    started = time.process_time()

    with pytest.raises(RecipeError) as error:
        parse(expression)

    assert time.process_time() - started < 0.1
    assert str(error.value) == (
        f"this filter has {len(expression):,} characters, more than 2,000\n"
        "  where: r.yaml, line 9, filters\n"
        "  fix:   write several filters: all of them must hold"
    )


def test_long_products_of_large_numbers_end_in_null_not_in_work() -> None:
    started = time.process_time()

    kept = parse("words" + " * 9223372036854775807" * 90 + " > 0").keep(batch_of(ROW))

    assert kept == [False]
    assert time.process_time() - started < 0.1
