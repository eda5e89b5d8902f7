"""The row schema: names, types, and what null means.

A row is a conversation as trainers take it (`messages`), the first instruction and response of it
flat, where they came from, and the quality columns of the recipe behind that. In a preference
config a row has `prompt`, `chosen` and `rejected` instead, and the flat fields are the chosen
response's.

Never beside `messages`, because TRL breaks on them or silently trains on them: `prompt`,
`completion`, `conversations`, `chosen`, `rejected`, `input_ids`, `labels`, `images`, `tools`,
`chat_template_kwargs`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from prequery.errors import ColumnError

if TYPE_CHECKING:
    from datasets import Features

Row = dict[str, Any]

Shape = Literal["messages", "preference"]
"""What a row is: a conversation, or two responses of which one is better."""

FIELDS: Mapping[str, str] = {
    "id": "string",  # `id_of`: survives rebuilds, filter changes and new columns
    "instruction": "string",
    "response": "string",
    "generator": "string",  # of the instructions: model@revision
    "responder": "string",  # of the responses: model@revision
    "system_prompt": "string",  # that the instruction was asked for under; null: none
    "steering": "string",  # name of the recipe's setting; null: it has none
    "steering_item": "string",  # that was drawn; null: the setting has none
    "instruction_start": "string",  # words that the model was given; null: none
    "turns": "int32",  # pairs of instruction and response
    "turns_ended": "string",  # why there are fewer than were drawn; null: there are not
    "follow_up_system": "string",  # of later user turns; null: none, or the recipe hides it
    "thinking": "string[]",  # think block of each response; null: not split off
    "instruction_temperature": "float64",  # null: greedy
    "instruction_top_p": "float64",  # null: the whole vocabulary
    "instruction_seed": "int64",  # null: greedy, or not heeded
    "response_seed": "int64",  # null: greedy, or not heeded
    "instruction_tokens": "int32",
    "response_tokens": "int32",
    "instruction_finish_reason": "string",
    "response_finish_reason": "string",
}
"""Every field of a row but `messages` and the columns, in order, with its `datasets` dtype."""

PREFERENCE: Mapping[str, str] = {
    "chosen_score": "float64",
    "rejected_score": "float64",
    "score_margin": "float64",  # over 0
    "scores": "float64[]",  # of every response to the instruction, in the order of their seeds
    "rejected_seed": "int64",
}
"""Fields of a preference config besides."""

CONVERSATION: Mapping[Shape, tuple[str, ...]] = {
    "messages": ("messages",),
    "preference": ("prompt", "chosen", "rejected"),
}
"""Lists of {role, content}, by what a row is."""

EVIDENCE: Mapping[str, str] = {
    f"{part}_{name}": dtype
    for part in ("instruction", "response")
    for name, dtype in (
        ("logprob_sum", "float64"),
        ("logprob_squares", "float64"),
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


def dtypes(columns: Mapping[str, str], shape: Shape = "messages") -> dict[str, str]:
    """Return the dtype of every flat field: ours, then those that the columns measure.

    `[]` behind a dtype means a list of it.

    Args:
        columns: Field name to dtype, of all columns in the recipe's order.
        shape: What a row is.

    Raises:
        ColumnError: A column claims a name that is taken or that trainers misread.
    """
    for name in columns:
        if name in FIELDS or name in PREFERENCE or name in EVIDENCE or name in RESERVED:
            raise ColumnError(
                f"a column measures {name!r}, which is no name for a column",
                f"field {name}",
                "rename the column's field; prequery.rows lists what is taken",
            )
    own = {**FIELDS, **PREFERENCE} if shape == "preference" else FIELDS
    return {**own, **columns}


def features(columns: Mapping[str, str], shape: Shape = "messages") -> "Features":
    """Return the released schema.

    `messages` is a `List`, not a `Sequence`: a `Sequence` of a struct turns into a struct of
    lists, and trainers then see no messages.
    """
    from datasets import Features, List, Value

    def kind(dtype: str) -> Any:
        inner = dtype.removesuffix("[]")
        return Value(dtype) if inner == dtype else List(Value(inner))

    flat = {name: kind(dtype) for name, dtype in dtypes(columns, shape).items()}
    said = List({"role": Value("string"), "content": Value("string")})
    spoken = dict.fromkeys(CONVERSATION[shape], said)
    return Features({"id": flat.pop("id"), **spoken, **flat})


def id_of(fingerprint: str, slot: int) -> str:
    """Return the id of a row: of a recipe's fingerprint, and the slot that made it."""
    return f"{fingerprint[:12]}-{slot}"


def slot_of(row_id: str) -> int:
    """Return the slot that made a row, by its id."""
    return int(row_id.rpartition("-")[2])


def messages(turns: Sequence[tuple[str, str]], system: str | None = None) -> list[dict[str, str]]:
    """Return a conversation as trainers take it.

    Args:
        turns: Instruction and response of each.
        system: Said before all of them; null: nothing.
    """
    said = [] if system is None else [{"role": "system", "content": system}]
    for instruction, response in turns:
        said.append({"role": "user", "content": instruction})
        said.append({"role": "assistant", "content": response})
    return said


_PYTHON: Mapping[str, type] = {
    "string": str,
    "int32": int,
    "int64": int,
    "float64": float,
    "bool": bool,
}


def check(rows: Sequence[Row], columns: Mapping[str, str], shape: Shape = "messages") -> None:
    """Hold every row against the schema, because `datasets` coerces silently.

    It would turn a missing key into null, 1.5 into 1 and True into 1.

    Raises:
        ColumnError: Naming the row and the field.
    """
    expected = dtypes(columns, shape)
    names = {*CONVERSATION[shape], *expected}
    flat = [(name, _PYTHON.get(dtype)) for name, dtype in expected.items() if dtype[-2:] != "[]"]
    lists = {name: dtype[:-2] for name, dtype in expected.items() if dtype[-2:] == "[]"}
    for row in rows:
        if row.keys() != names:
            odd = sorted(row.keys() ^ names)
            raise _bad(row, odd[0], "is missing or was not asked for")
        for name, kind in flat:
            value = row[name]
            if value is not None:
                _check_value(row, name, value, kind, expected[name])
        for name, inner in lists.items():
            value = row[name]
            if value is not None and type(value) is not list:
                raise _bad(row, name, f"is {value!r:.80}, not a list of {inner}")
            for one in value or ():
                if one is not None:
                    _check_value(row, name, one, _PYTHON.get(inner), inner)
        for name in ("id", "instruction", "response"):
            if row[name] is None:
                raise _bad(row, name, "is null")


def _check_value(row: Row, name: str, value: object, kind: type | None, dtype: str) -> None:
    if kind is not None and type(value) is not kind:
        raise _bad(row, name, f"is {value!r:.80}, not {dtype}")
    if type(value) is str and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            what = "holds a lone surrogate, which no UTF-8 file can"
            raise _bad(row, name, what) from None


def _bad(row: Row, name: str, why: str) -> ColumnError:
    return ColumnError(
        f"the field {name!r} {why}",
        f"row {row.get('id')}",
        "this is a mistake in prequery or in a column of yours; the answers are kept",
    )
