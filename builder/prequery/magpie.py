"""The `datasets` builder: generation is its download, conversion its preparation."""

import posixpath
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from datasets import (
    ArrowBasedBuilder,
    BuilderConfig,
    DatasetInfo,
    Split,
    SplitGenerator,
    Version,
    load_dataset,
)
from datasets.builder import Key
from fsspec.core import url_to_fs

from prequery import rows, shards
from prequery.errors import BuildError, ShardError
from prequery.folder import Folder
from prequery.lock import Lock
from prequery.options import Options
from prequery.pipeline import Build, build
from prequery.progress import Progress
from prequery.recipe import Recipe, bundled_names, load
from prequery.synthesis import Observer


class Shows(Observer, AbstractContextManager["Shows"], Protocol):
    """An observer that is open while a build runs."""


@dataclass
class MagpieConfig(BuilderConfig):
    """One recipe."""

    recipe: str = ""


class Magpie(ArrowBasedBuilder):
    """Builds a recipe's dataset by asking an endpoint.

    ```python
    builder = Magpie("smollm2-demo")
    builder.download_and_prepare("out/smollm2-demo", file_format="parquet")
    builder.as_dataset(split="train")
    ```

    With an output folder and Parquet, the folder is a loadable release: shards, card, recipe and
    lock. Without one, the dataset goes to the `datasets` cache as always. Either way every answer
    is in the journal first, and the same call carries on where a killed one stopped.

    Args:
        recipe: Path of a recipe, or the name of a bundled one.
        options: What changes speed or place and no value.
        show: Makes the progress display for a number of rows.
        cache_dir: Of `datasets`.
    """

    BUILDER_CONFIG_CLASS = MagpieConfig
    BUILDER_CONFIGS = [MagpieConfig(name, recipe=name) for name in bundled_names()]  # noqa: RUF012

    rows_per_shard = shards.ROWS_PER_SHARD

    def __init__(
        self,
        recipe: str | Path | Recipe,
        *,
        options: Options | None = None,
        show: Callable[[int], Shows] = Progress,
        cache_dir: str | None = None,
    ) -> None:
        self.recipe = recipe if isinstance(recipe, Recipe) else load(recipe)
        self.options = options or Options()
        self.lock: Lock | None = None
        self._show: Callable[[int], Shows] | None = show
        self._build: Build | None = None
        self._folder: Folder | None = None
        self._work = Path()
        # A recipe of the user's own is no entry of BUILDER_CONFIGS, and may bear the name of one.
        self.BUILDER_CONFIGS = []
        super().__init__(
            cache_dir=cache_dir,
            dataset_name="magpie",
            config_name=self.recipe.name,
            # config_id ignores what is in a recipe; the hash is what tells two builds apart.
            config_id=f"{self.recipe.name}-{self.recipe.build_hash[:12]}",
            hash=self.recipe.build_hash,
            version=Version(self.recipe.version),
            recipe=self.recipe.source,
        )

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes convert; they show nothing and hold no rows.
        return self.__dict__ | {"_show": None, "_build": None}

    def _info(self) -> DatasetInfo:
        return DatasetInfo(
            features=rows.features(self.recipe.dtypes, self.recipe.shape),
            license=self.recipe.release.license or "",
        )

    def download_and_prepare(
        self, output_dir: str | Path | None = None, *args: Any, **kwargs: Any
    ) -> None:
        """Build, or reuse what is built.

        Args:
            output_dir: Local folder or fsspec URL; null is the `datasets` cache.
            *args: As in `datasets`.
            **kwargs: As in `datasets`; `file_format` is `parquet` where there is an `output_dir`.

        Raises:
            BuildError: Naming what, where and what to do. Everything answered is in the journal.
        """
        if output_dir is None or kwargs.get("file_format", "parquet") != "parquet":
            self._prepare(output_dir, *args, **kwargs)
            return
        fs, root = url_to_fs(str(output_dir), **(kwargs.get("storage_options") or {}))
        self._folder = Folder(fs, root, self.recipe)
        self._file_format = "parquet"
        try:
            if not self._folder.is_complete():
                self._folder.clear()
                url = fs.unstrip_protocol(self._folder.shards)
                self._prepare(url, *args, **kwargs | {"file_format": "parquet"})
                self._finish(self._folder)
        except OSError as error:
            raise _unwritable(error, str(output_dir)) from error

    def as_dataset(self, split: Any = None, in_memory: bool = False) -> Any:
        """Return what was built, also where it was written as Parquet."""
        if self._folder is None or self._file_format != "parquet":
            return super().as_dataset(split=split, in_memory=in_memory)
        root = self._folder.fs.unstrip_protocol(self._folder.root)
        path = root.removeprefix("file://")
        return load_dataset(path, self.recipe.name, split=split, keep_in_memory=in_memory)

    @property
    def build(self) -> Build | None:
        """What the last call built; null when it found everything in place."""
        return self._build

    def folder_lock(self) -> Lock:
        """Return the lock of the output folder, after a build with one."""
        if self._folder is None:
            raise RuntimeError("there is no output folder: pass one to download_and_prepare")
        return self._folder.read_lock()

    def sample_rows(self, count: int) -> list[dict[str, Any]]:
        """Return rows of the first row group, evenly spaced."""
        table = next(self._folder.tables()) if self._folder else pa.table({})
        step = max(table.num_rows // count, 1)
        wanted = range(0, table.num_rows, step)[:count]
        found: list[dict[str, Any]] = table.take(list(wanted)).to_pylist()
        return found

    def _prepare(self, output_dir: Any, *args: Any, **kwargs: Any) -> None:
        try:
            with shards.work_folder() as self._work:
                super().download_and_prepare(output_dir, *args, **kwargs)
        except Exception as error:
            # `datasets` wraps what happens inside; the user needs the error that names a fix.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, BuildError | OSError):
                cause = cause.__cause__ or cause.__context__
            if cause is None or cause is error:
                raise
            raise cause from None

    def _finish(self, folder: Folder) -> None:
        assert self._build is not None
        self.lock = folder.finish(self._build.pinned, self._build.selection)
        # What datasets leaves behind for itself is no part of a release.
        for name in ("_builder.lock", ".incomplete_info.lock", "_info.lock"):
            if folder.fs.exists(folder.shards + name):
                folder.fs.rm(folder.shards + name)
        for name in ("dataset_info.json", "LICENSE"):
            path = posixpath.join(folder.shards, name)
            if folder.fs.exists(path):
                folder.fs.rm(path)

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        assert self._show is not None
        with self._show(self.recipe.goal) as shown:
            self._build = build(self.recipe, self.options, shown, self._work, self.rows_per_shard)
        return [SplitGenerator(name=Split.TRAIN, gen_kwargs={"parts": self._build.selection.parts})]

    def _generate_tables(self, parts: list[str]) -> Iterator[tuple[Key, pa.Table]]:
        for index, path in enumerate(parts):
            for group, table in enumerate(shards.read_part(path)):
                yield Key(index, group), table

    def _prepare_split_single(
        self, gen_kwargs: dict[str, Any], fpath: str, **kwargs: Any
    ) -> Iterator[tuple[int, bool, Any]]:
        """Make a shard of every part: where they are cut must not depend on measured sizes."""
        results = []
        for shard, part in enumerate(gen_kwargs["parts"]):
            path = fpath.replace("SSSSS", f"{shard:05d}")
            single = super()._prepare_split_single
            one = kwargs | {"gen_kwargs": {"parts": [part]}, "max_shard_size": None}
            for job, done, content in single(fpath=path, **one):
                if done:
                    results.append(content)
                else:
                    yield job, False, content
        # The counts add up, the lists follow one another; the features are those of all.
        counts, sizes, features, shards_, lengths, originals, original_lengths = zip(
            *results, strict=True
        )
        together = (
            sum(counts),
            sum(sizes),
            features[0],
            sum(shards_),
            list(chain(*lengths)),
            sum(originals),
            list(chain(*original_lengths)),
        )
        yield kwargs["job_id"], True, together

    def _rename(self, src: str, dst: str) -> None:
        folder, name = posixpath.split(dst)
        if self._file_format == "parquet":
            name = name.removeprefix(f"{self.dataset_name}-")
            name = name if "-of-" in name else shards.released_name("train", 0, 1)
        super()._rename(src, posixpath.join(folder, name))


def _unwritable(error: OSError, where: str) -> ShardError:
    return ShardError(
        f"the output folder cannot be written: {error.strerror or error}",
        where,
        "make room or correct the permissions, then run the same command: "
        "answers are in the journal",
    )
