"""The output folder: a release that is not on the Hub yet.

    README.md                          the card
    <config>.yaml                      the recipe, letter by letter
    <config>.lock.json                 the lock, written last: its presence means complete
    <config>.card.jinja                the card's template, where it is a user's own
    <config>/train-00000-of-00001.parquet
    <config>.croissant.json            the release for machines
    <config>.history.json              versions before this one, where somebody noted them
    plots/<config>/lengths.svg         and others

Any fsspec URL is such a folder too.
"""

import hashlib
import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from prequery import card, lock, shards
from prequery.card import Card, history, page, sections
from prequery.errors import CardError, ShardError
from prequery.lock import Lock
from prequery.recipe import AnyRecipe
from prequery.selection import Selection


@dataclass(frozen=True)
class Folder:
    """One release's place.

    Args:
        fs: The file system.
        root: Path on it.
        recipe: What is or will be there.
    """

    fs: AbstractFileSystem
    root: str
    recipe: AnyRecipe

    @property
    def shards(self) -> str:
        """Where the config's Parquet files are."""
        return self.path(self.recipe.name)

    @property
    def lock(self) -> str:
        """Where the lock is, once the folder is complete."""
        return self.path(f"{self.recipe.name}{lock.LOCK}")

    def path(self, name: str) -> str:
        """Return the full path of something in the folder."""
        return posixpath.join(self.root, name)

    def is_complete(self) -> bool:
        """Say whether this build is here already, whole and unchanged.

        Raises:
            CardError: The README here, or the recipe's card template, is broken.
            ShardError: The folder holds another build, or files that are not ours.
        """
        # Known before a row is paid for, not behind the last one.
        page.check_template(self.given_template(), self.recipe.release.template or "")
        sections.check(self.readme() or "")
        if not self.fs.exists(self.lock):
            self._refuse_foreign()
            return False
        held = self.read_lock()
        if held["config"]["build_hash"] != self.recipe.build_hash:
            raise ShardError(
                f"this folder holds another build: {held['config']['build_hash'][:12]}, "
                f"this recipe is {self.recipe.build_hash[:12]}",
                self.lock,
                "choose a new --out, or restore the recipe to what it was",
            )
        return self.fs.exists(self.path("README.md")) and self._holds(held.get("files", {}))

    def _holds(self, files: Mapping[str, Mapping[str, Any]]) -> bool:
        """Say whether exactly these shards are here, byte for byte."""
        here = {self._name(path): path for path in self._shard_paths()}
        return here.keys() == files.keys() and all(
            self._sha256(path) == files[name]["sha256"] for name, path in here.items()
        )

    def _refuse_foreign(self) -> None:
        """Refuse to write over anything but the leftovers of an unfinished build of ours."""
        if not self.fs.exists(self.shards):
            return
        names = {posixpath.basename(path) for path in self.fs.ls(self.shards, detail=False)}
        foreign = sorted(n for n in names if not _is_ours(n))
        if foreign:
            raise ShardError(
                f"the folder holds files that prequery did not write, as {foreign[0]!r}",
                self.shards,
                "choose a new --out; nothing was changed here",
            )

    def clear(self) -> None:
        """Take away what an unfinished build left, so that nothing of it is adopted.

        `datasets` would take over the files of a stale `.incomplete` folder.
        """
        plots = self.path(page.plot_folder(self.recipe))
        for path in (self.lock, self.shards, self.shards + ".incomplete", plots):
            if self.fs.exists(path):
                self.fs.rm(path, recursive=True)

    def put(self, parts: Sequence[str]) -> None:
        """Bring finished parts here, as the shards.

        Args:
            parts: Files on this machine, in order.
        """
        self.fs.makedirs(self.shards, exist_ok=True)
        for number, part in enumerate(parts):
            name = shards.released_name("train", number, len(parts))
            self.fs.put_file(part, posixpath.join(self.shards, name))

    def finish(self, pinned: Lock, selection: Selection) -> Lock:
        """Write card, plots, recipe and, last, the lock.

        Raises:
            CardError: The README in the folder is broken; rows and README stay as they are.
            ShardError: The folder cannot be written.
        """
        sha256 = shards.rows_sha256(self.tables())
        complete = lock.complete(pinned, selection, self.files(), self.recipe, sha256)
        if self.fs.exists(self._template):
            self.fs.rm(self._template)
        self.write_card(complete, self.given_template())
        self.write(f"{self.recipe.name}.yaml", self.recipe.text)
        self.write(f"{self.recipe.name}{lock.LOCK}", lock.dump(complete))
        return complete

    def card(
        self, complete: Lock, template: str | None = None, versions: str | None = None
    ) -> Card:
        """Make the card of the shards that are here, which a lock describes.

        Args:
            complete: The lock.
            template: A user's own; null: the one that is kept in the folder, else the bundled.
            versions: The history's file; null: the one that is in the folder.

        Raises:
            CardError: The template cannot be rendered, or the history of versions is damaged.
            ShardError: Recipe, lock and shards are not of one build.
        """
        template = self.template() if template is None else template
        versions = self.beside(self.history) if versions is None else versions
        known = history.read(versions, self.path(self.history))
        made = card.make(self.recipe, complete, card.measure(self.tables()), template, known)
        kept = {posixpath.basename(self._template): template, self.history: versions}
        texts = {name: text for name, text in kept.items() if text is not None}
        return replace(made, files={**made.files, **texts})

    def write_card(
        self, complete: Lock, template: str | None = None, versions: str | None = None
    ) -> None:
        """Write the card into its section of README.md, and its files beside it.

        Args:
            complete: The lock.
            template: As for `card`; it is kept, so that anybody can make or check the card again.
            versions: As for `card`; they are kept too.

        Raises:
            CardError: The README in the folder is broken; it stays as it is.
            ShardError: Recipe, lock and shards are not of one build.
        """
        made = self.card(complete, template, versions)
        readme = sections.merged(self.readme(), made.readme, self.recipe.name)
        for name, text in made.files.items():
            self.write(name, text)
        self.write("README.md", readme)

    @property
    def history(self) -> str:
        """Name of the file that tells the versions before this one."""
        return f"{self.recipe.name}.history.json"

    @property
    def _template(self) -> str:
        return self.path(f"{self.recipe.name}.card.jinja")

    def given_template(self) -> str | None:
        """Return the card template that the recipe names; null: none.

        Raises:
            CardError: It cannot be read.
        """
        name = self.recipe.release.template
        return None if name is None else read_template(Path(self.recipe.source).parent / name)

    def template(self) -> str | None:
        """Return the user's card template that is kept in the folder; null: there is none."""
        return self.beside(posixpath.basename(self._template))

    def beside(self, name: str) -> str | None:
        """Return the text of a file that belongs to the card; null: there is none."""
        path = self.path(name)
        if not self.fs.exists(path):
            return None
        content: bytes = self.fs.cat_file(path)
        return content.decode(errors="replace")

    def readme(self) -> str | None:
        """Return README.md; null where there is none.

        Raises:
            CardError: It is not UTF-8.
        """
        path = self.path("README.md")
        if not self.fs.exists(path):
            return None
        # Line ends stay what they are: what others wrote is kept byte for byte.
        content: bytes = self.fs.cat_file(path)
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            what = f"the README is not UTF-8: byte {error.start} is {content[error.start]:#04x}"
            raise CardError(what, path, "save it as UTF-8") from None

    def write(self, name: str, text: str) -> None:
        """Write a file whole or not at all, as far as the file system can."""
        place, base = posixpath.split(self.path(name))
        draft = posixpath.join(place, f".{base}.draft")
        self.fs.makedirs(place, exist_ok=True)
        with self.fs.open(draft, "wb") as file:
            file.write(text.encode())
        self.fs.mv(draft, self.path(name))

    def files(self) -> dict[str, dict[str, Any]]:
        """Return size, rows and SHA-256 of every shard, by its path in the release."""
        found = {}
        for path in self._shard_paths():
            with self.fs.open(path, "rb") as file:
                row_count = pq.ParquetFile(file).metadata.num_rows
            size, sha256 = self.fs.size(path), self._sha256(path)
            found[self._name(path)] = {"bytes": size, "rows": row_count, "sha256": sha256}
        return found

    def _name(self, path: str) -> str:
        return posixpath.join(self.recipe.name, posixpath.basename(path))

    def _sha256(self, path: str) -> str:
        with self.fs.open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows of all shards, a row group at a time."""
        for path in self._shard_paths():
            with self.fs.open(path, "rb") as file:
                yield from shards.read(file)

    def _shard_paths(self) -> list[str]:
        return sorted(self.fs.glob(posixpath.join(self.shards, "train-*.parquet")))

    def read_lock(self) -> Lock:
        """Return the lock that stands in the folder.

        Raises:
            ShardError: It is not a lock.
        """
        try:
            with self.fs.open(self.lock, "rb") as file:
                held = json.load(file)
            _ = held["config"]["build_hash"]
        except (ValueError, KeyError, TypeError):
            raise ShardError(
                "the lock in this folder is damaged", self.lock, "choose a new --out"
            ) from None
        assert isinstance(held, dict)
        return held


def finished_configs(fs: AbstractFileSystem, root: str) -> list[str]:
    """Return the configs of a folder whose lock, which is written last, is there."""
    found: list[str] = fs.glob(posixpath.join(root, f"*{lock.LOCK}"))
    return sorted(posixpath.basename(path).removesuffix(lock.LOCK) for path in found)


def read_template(path: Path) -> str:
    """Read a user's card template.

    Raises:
        CardError: It cannot be read, is not UTF-8, or is no Jinja.
    """
    try:
        template = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        what = f"the card's template cannot be read: {why}"
        raise CardError(what, str(path), "correct the path or the file") from None
    page.check_template(template, str(path))
    return template


def _is_ours(name: str) -> bool:
    return name in ("dataset_info.json", "LICENSE") or (
        name.endswith(".parquet") and name.startswith(("train-", "magpie-train"))
    )
