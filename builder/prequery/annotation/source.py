"""Open somebody's dataset and stream its rows: from the Hub, or from files anywhere.

Rows come through `datasets` in streaming mode, a few hundred at a time. What is read is what was
pinned: a commit on the Hub, or files whose SHA-256 is taken before the first row.
"""

import hashlib
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from prequery.errors import DatasetError
from prequery.recipe import Dataset

if TYPE_CHECKING:
    from datasets import Features

BATCH_ROWS = 256

MOST_FOOTERS = 100
"""Files whose row groups are looked up before the first row: one or two requests each."""

FORMATS: Mapping[str, str] = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
}
"""Ends of file names, and what `datasets` reads them with; also with `.gz`, `.zst` or `.xz`."""

_PACKED = (".gz", ".zst", ".xz", ".bz2")


@dataclass(frozen=True)
class Source:
    """An open dataset.

    Args:
        dataset: What was asked for.
        features: Of its rows.
        files: SHA-256 of each file by its name; empty of a dataset on the Hub.
        row_count: How many rows it has; null where it does not say.
    """

    dataset: Dataset
    features: "Features"
    files: Mapping[str, str]
    row_count: int | None
    _stream: Any = field(repr=False)

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows in order, a batch at a time.

        Raises:
            DatasetError: A row cannot be read: the error says which is the last that could.
        """
        read = 0
        tables = iter(self._stream.with_format("arrow").iter(batch_size=BATCH_ROWS))
        while True:
            with _read_from(self.dataset, f"behind row {read} of split {self.dataset.split!r}"):
                table = next(tables, None)
                rows = [] if table is None else table.to_pylist()
            if table is None and not read:
                raise _empty(self.dataset)
            if table is None:
                return
            missing = sorted(set(self.features) - set(table.column_names))
            if missing:
                raise DatasetError(
                    f"the field {missing[0]!r} is not in every part of the dataset",
                    f"{self.dataset.path}, behind row {read} of split {self.dataset.split!r}",
                    "give all files the same fields, as Parquet files have them",
                )
            yield rows
            read += len(rows)


def opened(dataset: Dataset, base: Path, place: str | None = None) -> Source:
    """Open a dataset, and see that it is the one that was pinned.

    Args:
        dataset: Pinned by the revision or the SHA-256.
        base: Folder where a relative path begins.
        place: Where its files are instead; of a dataset on the Hub, its id.

    Raises:
        DatasetError: It is not there, or not open to this user; it has no such config or split, or
            no rows; or it is another than was pinned.
    """
    if dataset.revision is None:
        if place is None:
            source, sha256 = opened_files(dataset, base)
        else:
            source, sha256 = opened_files(replace(dataset, path=place), Path())
        if sha256 != dataset.sha256:
            raise DatasetError(
                f"the files are others than were pinned: sha256 {sha256}, not {dataset.sha256}",
                dataset.path,
                "name where the pinned files are: prequery annotate PATH --recipe FILE; "
                "or pin these in the recipe",
            )
        return source
    if place not in (None, dataset.path):
        raise DatasetError(
            f"the recipe is for another dataset: {dataset.path!r}",
            f"the dataset {place!r}",
            f"leave it out, or pin {place!r} in the recipe",
        )
    with _read_from(dataset):
        source, files = _built(dataset, {"path": dataset.path, "revision": dataset.revision})
    # Offline, `datasets` takes whatever revision its cache holds.
    other = [name for name in files if f"@{dataset.revision}/" not in name]
    if other:
        raise DatasetError(
            f"another revision than {dataset.revision} was found: {other[0]!r:.200}",
            dataset.path,
            "go online once, so that the pinned revision can be read",
        )
    return source


def opened_files(dataset: Dataset, base: Path) -> tuple[Source, str]:
    """Open a dataset of files, and return with it their SHA-256 together, whatever is pinned.

    Raises:
        DatasetError: As `opened`.
    """
    place = _place(dataset.path, base)
    with _read_from(dataset):
        source, files = _built(dataset, _loaded(dataset, place))
        hashes = _hashes(files, place)
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in hashes.items())
    row_count = source.row_count
    if row_count is None and all(name.endswith(".parquet") for name in files):
        with _read_from(dataset):
            row_count = sum(map(_parquet_rows, files))
        if not row_count:
            raise _empty(dataset)
    source = replace(source, files=hashes, row_count=row_count)
    return source, hashlib.sha256(lines.encode()).hexdigest()


def _place(path: str, base: Path) -> str:
    """Return where the files are."""
    if "://" not in path:
        return str(base / path)
    if urlsplit(path).username or urlsplit(path).password:
        raise DatasetError(
            "the address of the dataset holds credentials",
            "the dataset's path",
            "take them out: the store's own client reads them from the environment",
        )
    return path


def _loaded(dataset: Dataset, place: str) -> dict[str, Any]:
    """Return how `datasets` is told to read files."""
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(place)
    if fs.isdir(path):
        return {"path": place}
    name = posixpath.basename(place)
    for end in _PACKED:
        name = name.removesuffix(end)
    module = FORMATS.get(posixpath.splitext(name)[1])
    if module is None:
        raise DatasetError(
            f"no reader is known for {posixpath.basename(place)!r}",
            dataset.path,
            f"name a folder or files that end in one of: {', '.join(FORMATS)}",
        )
    if not fs.glob(path):
        raise DatasetError(
            "there is no such file or folder",
            dataset.path,
            "correct the path: it is relative to the recipe, or to where the command runs",
        )
    return {"path": module, "data_files": {"train": place}}


def _built(dataset: Dataset, arguments: Mapping[str, Any]) -> tuple[Source, list[str]]:
    """Return the open dataset, and the addresses of its files."""
    from datasets import Features, load_dataset_builder

    given: dict[str, Any] = {"name": dataset.config} if dataset.config is not None else {}
    builder = load_dataset_builder(**arguments, **given)
    files = dict(builder.config.data_files or {})
    splits = [str(name) for name in files] or [str(name) for name in builder.info.splits or {}]
    if dataset.split not in splits:
        raise DatasetError(
            f"the dataset has no split {dataset.split!r}",
            dataset.path,
            f"choose one of: {', '.join(splits) or 'none'}",
        )
    stream = builder.as_streaming_dataset(split=dataset.split)
    if stream.features is None:
        # CSV has no types: those of its first rows hold for all.
        first = next(iter(stream.with_format("arrow").iter(batch_size=BATCH_ROWS)))
        given |= {"features": Features.from_arrow_schema(first.schema)}
        builder = load_dataset_builder(**arguments, **given)
        stream = builder.as_streaming_dataset(split=dataset.split)
    if stream.num_shards <= MOST_FOOTERS:
        # pyarrow decodes a Parquet file to its end, ahead of who reads it: row groups one by one.
        stream = stream.reshard()
    told = (builder.info.splits or {}).get(dataset.split)
    row_count = told.num_examples if told is not None else None
    features = stream.features or given["features"]
    source = Source(dataset, features, {}, row_count or None, stream)
    return source, [str(name) for name in files.get(dataset.split, [])]


def _hashes(files: list[str], place: str) -> dict[str, str]:
    """Return the SHA-256 of each file by its name in the dataset, in the order of reading."""
    from fsspec.core import url_to_fs

    fs, root = url_to_fs(place)
    root = root if fs.isdir(root) else posixpath.dirname(root)
    found = {}
    for address in files:
        held, path = url_to_fs(address)
        with held.open(path, "rb") as file:
            name = posixpath.relpath(path, root) if path.startswith(root) else path
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _parquet_rows(address: str) -> int:
    import pyarrow.parquet as pq
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(address)
    with fs.open(path, "rb") as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


def _empty(dataset: Dataset) -> DatasetError:
    return DatasetError(
        f"the split {dataset.split!r} has no rows",
        dataset.path,
        "choose another split or dataset",
    )


@contextmanager
def _read_from(dataset: Dataset, place: str | None = None) -> Iterator[None]:
    """Say what is wrong with a dataset, in the place of what its reader says."""
    from datasets.exceptions import DatasetNotFoundError

    where = dataset.path if place is None else f"{dataset.path}, {place}"
    try:
        yield
    except DatasetError:
        raise
    except DatasetNotFoundError as error:
        raise _closed(where, error) from None
    except StopIteration:
        raise _empty(dataset) from None
    except (OSError, EOFError) as error:
        answered = getattr(error, "response", None)
        if getattr(answered, "status_code", None) in (401, 403, 404):
            raise _closed(where, error) from None
        raise DatasetError(
            f"the dataset cannot be read: {_first_line(error)}",
            where,
            "see that it is there and can be reached, then run the same command: "
            "answers are in the journal",
        ) from None
    except Exception as error:
        # Readers of files raise whatever their formats' libraries do.
        raise DatasetError(
            f"the dataset is not as its fields say: {type(error).__name__}: {_first_line(error)}",
            where,
            "correct the file, or convert it to Parquet, where every row has the same fields",
        ) from error


def _closed(where: str, error: Exception) -> DatasetError:
    return DatasetError(
        f"the dataset is not there, or not open to you: {_first_line(error)}",
        where,
        "check the id and the revision; a private or gated dataset needs access that was "
        "granted on its page, and a token of yours in HF_TOKEN",
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return re.sub(r"hf_\w+", "hf_...", text.splitlines()[0])[:300]
