"""The row schema: names, types, and what null means.

A row is one instruction and its response as trainers take them (`messages`), the same two texts
flat, where they came from, and the quality columns of the recipe behind that.

Never beside `messages`, because TRL breaks on them or silently trains on them: `prompt`,
`completion`, `conversations`, `chosen`, `rejected`, `input_ids`, `labels`, `images`, `tools`,
`chat_template_kwargs`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prequery.errors import ColumnError

if TYPE_CHECKING:
    from datasets import Features

Row = dict[str, Any]

FIELDS: Mapping[str, str] = {
    "id": "string",  # fingerprint[:12]-slot: survives rebuilds, filter changes and new columns
    "instruction": "string",
    "response": "string",
    "generator": "string",  # model@revision
    "system_prompt": "string",  # what the template puts there by itself; null: it puts none
    "instruction_temperature": "float64",  # null: greedy
    "instruction_top_p": "float64",  # null: the whole vocabulary
    "instruction_seed": "int64",  # null: greedy
    "response_seed": "int64",  # null: greedy
    "instruction_tokens": "int32",
    "response_tokens": "int32",
    "instruction_finish_reason": "string",
    "response_finish_reason": "string",
}
"""Every field of a row but `messages` and the columns, in order, with its `datasets` dtype."""

EVIDENCE: Mapping[str, str] = {
    f"{part}_{name}": dtype
    for part in ("instruction", "response")
    for name, dtype in (
        ("logprob_sum", "float64"),
        ("logprob_lowest", "float64"),
        ("logprob_count", "int64"),
    )
}
"""Fields that columns may read but no release holds."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "instruction_finish_reason": ("eos_token", "stop_sequence", "length"),
    "response_finish_reason": ("eos_token", "stop_sequence", "length"),
}
"""Fields with a closed set of values."""

RESERVED = frozenset(
    {
        "messages",
        "prompt",
        "completion",
        "conversations",
        "chosen",
        "rejected",
        "input_ids",
        "labels",
        "images",
        "tools",
        "chat_template_kwargs",
    }
)


def dtypes(columns: Mapping[str, str]) -> dict[str, str]:
    """Return the dtype of every flat field: ours, then those that the columns measure.

    Args:
        columns: Field name to dtype, of all columns in the recipe's order.

    Raises:
        ColumnError: A column claims a name that is taken or that trainers misread.
    """
    for name in columns:
        if name in FIELDS or name in EVIDENCE or name in RESERVED:
            raise ColumnError(
                f"a column measures {name!r}, which is no name for a column",
                f"field {name}",
                "rename the column's field; prequery.rows lists what is taken",
            )
    return {**FIELDS, **columns}


def flat_features(dtypes: Mapping[str, str]) -> "Features":
    """Return a schema of plain fields, without `messages`."""
    from datasets import Features, Value

    return Features({name: Value(dtype) for name, dtype in dtypes.items()})


def features(columns: Mapping[str, str]) -> "Features":
    """Return the released schema.

    `messages` is a `List`, not a `Sequence`: a `Sequence` of a struct turns into a struct of
    lists, and trainers then see no messages.
    """
    from datasets import Features, List, Value

    flat = {name: Value(dtype) for name, dtype in dtypes(columns).items()}
    messages = List({"role": Value("string"), "content": Value("string")})
    return Features({"id": flat.pop("id"), "messages": messages, **flat})


def messages(instruction: str, response: str) -> list[dict[str, str]]:
    """Return the conversation as trainers take it."""
    return [
        {"role": "user", "content": instruction},
        {"role": "assistant", "content": response},
    ]


_PYTHON: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "int32": (int,),
    "int64": (int,),
    "float64": (float,),
    "bool": (bool,),
}


def check(rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    """Hold every row against the schema, because `datasets` coerces silently.

    It would turn a missing key into null, 1.5 into 1 and True into 1.

    Raises:
        ColumnError: Naming the row and the field.
    """
    expected = dtypes(columns)
    names = {"messages", *expected}
    for row in rows:
        if row.keys() != names:
            odd = sorted(row.keys() ^ names)
            raise _bad(row, odd[0], "is missing or was not asked for")
        for name, dtype in expected.items():
            value = row[name]
            if value is None:
                continue
            kinds = _PYTHON.get(dtype)
            if kinds and type(value) not in kinds:
                raise _bad(row, name, f"is {value!r:.80}, not {dtype}")
            if isinstance(value, str) and not _is_unicode(value):
                raise _bad(row, name, "holds a lone surrogate, which no UTF-8 file can")
        for name in ("id", "instruction", "response"):
            if row[name] is None:
                raise _bad(row, name, "is null")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad(row: Row, name: str, why: str) -> ColumnError:
    return ColumnError(
        f"the field {name!r} {why}",
        f"row {row.get('id')}",
        "this is a mistake in prequery or in a column of yours; the answers are kept",
    )
