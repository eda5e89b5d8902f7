"""Build a release once more, from its recorded answers or live, and say what is the same.

From recorded answers the Parquet files are the same, byte for byte, wherever the same packages are.
Live, no more can be promised than the endpoint keeps: every row is compared with its slot's new
one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from fsspec.core import url_to_fs

from prequery import lock, models, recording, shards
from prequery.conversation import Attempt, Script, script
from prequery.endpoint import Answer, Asks
from prequery.errors import RebuildError, RecipeError
from prequery.lock import Lock
from prequery.magpie import Magpie, Shows
from prequery.options import Options
from prequery.pipeline import journals_of
from prequery.progress import Progress
from prequery.recipe import Recipe, load
from prequery.released import FolderSource, Released, open_release
from prequery.rows import CONVERSATION, slot_of
from prequery.runner import run_async

Likeness = Literal["identical", "same instruction", "different", "missing"]
MOST_SHOWN = 1_000
"""Rows whose first differing token is looked for."""
EXCERPT_CHARS = 24


@dataclass(frozen=True)
class Rebuilt:
    """What came of a rebuild.

    Args:
        files: Path of every shard of the release to whether its bytes are the same.
        same_rows: All rows are the same, whatever files they stand in; null: the lock is from
            before it told.
        packages: Those whose version is another here: in the lock, and now.
    """

    files: Mapping[str, bool]
    same_rows: bool | None
    packages: Mapping[str, tuple[str | None, str | None]]

    @property
    def identical(self) -> bool:
        """Whether every shard has the bytes of the release."""
        return all(self.files.values())


@dataclass(frozen=True)
class Difference:
    """Where a row first differs from its slot's new one.

    Args:
        id: Of the row.
        likeness: How far they agree.
        part: `instruction` or `response`, with the number of the turn; empty where the slot made
            nothing to compare.
        token: Position of the first differing token in that text, from 0; null where the endpoint
            gives no ids.
        ids: That token's id in the release and now; null where one text ends there.
        texts: What follows from the first differing character, in the release and now.
    """

    id: str
    likeness: Likeness
    part: str = ""
    token: int | None = None
    ids: tuple[int | None, int | None] = (None, None)
    texts: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Comparison:
    """A live rebuild, row by row.

    Args:
        counts: Rows of the release by how like their slot's new one is.
        differences: Of the first rows that differ.
        rebuilt: Files and rows as a whole.
    """

    counts: Mapping[Likeness, int]
    differences: Sequence[Difference]
    rebuilt: Rebuilt

    @property
    def identical_ratio(self) -> float:
        """Share of the release's rows whose every text came again."""
        return self.counts["identical"] / max(sum(self.counts.values()), 1)


def from_recording(release: Released, out: str, files: Path | None = None) -> Rebuilt:
    """Build a release from its recorded answers; no endpoint is asked.

    Args:
        release: Holds a recording.
        out: Output folder or fsspec URL.
        files: Folder with the files that the recipe names by a path; null: it names none.

    Raises:
        RebuildError: The release was edited, or has no recording of its own recipe.
        BuildError: The build failed; what, where and how to go on.
    """
    root = recording.place(release.config, release.lock["config"]["version"])
    with _workshop(release, out, files) as (recipe, work):
        journals = work / "journals"
        where = f"{release.where}, {root}"
        recording.restore(lambda name: release.read(f"{root}/{name}"), recipe, where, journals)
        _build(release, recipe, out, Options(journal=journals, recorded=True), Progress)
    return _compare(release, open_release(out, release.config))


def live(
    release: Released,
    out: str,
    options: Options,
    say: Callable[[str], None],
    show: Callable[[int], Shows] = Progress,
    files: Path | None = None,
) -> Comparison:
    """Have a release written anew, and compare row by row.

    Args:
        release: What is to come again.
        out: Output folder or fsspec URL.
        options: Name the endpoints, and a journal of the rebuild's own: answers that it holds are
            not asked for again.
        say: Is told what the user should read.
        show: Makes the progress display.
        files: As for `from_recording`.

    Raises:
        RebuildError: The release was edited, or another model, revision or template is served.
        BuildError: The build failed; what, where and how to go on.
    """
    options = replace(options, exact=bool((release.lock.get("endpoint") or {}).get("exact")))
    with _workshop(release, out, files) as (recipe, _):
        run_async(_meet(recipe, release, options, say))
        _build(release, recipe, out, options, show)
        again = open_release(out, release.config)
        counts: dict[Likeness, int] = dict.fromkeys(get_args(Likeness), 0)
        differing: list[_Pair] = []
        for pair in _likenesses(recipe, release, again, options):
            counts[pair.likeness] += 1
            if pair.likeness != "identical" and len(differing) < MOST_SHOWN:
                differing.append(pair)
        differences = run_async(_locate(recipe, options, differing, say)) if differing else []
    return Comparison(counts, differences, _compare(release, again))


@contextmanager
def _workshop(release: Released, out: str, files: Path | None) -> Iterator[tuple[Recipe, Path]]:
    """Yield the release's recipe, with its lock beside it, and a folder for this rebuild."""
    _trust(release, out)
    with shards.work_folder() as work:
        for entry in files.iterdir() if files else ():
            # Paths in a recipe are relative to it.
            (work / entry.name).symlink_to(entry.resolve())
        path = work / f"{release.config}.yaml"
        path.unlink(missing_ok=True)
        beside = path.with_suffix(lock.LOCK)
        beside.unlink(missing_ok=True)
        path.write_text(release.recipe_text(), encoding="utf-8")
        beside.write_text(lock.dump(release.lock), encoding="utf-8")
        recipe = _recipe(path, release)
        if recipe.build_hash != release.lock["config"]["build_hash"]:
            raise RebuildError(
                "the recipe is not the one of the lock, or means something else to this prequery",
                release.where,
                f"it was made with prequery {release.lock['packages'].get('prequery')}; "
                "see what differs: prequery verify",
            )
        yield recipe, work


def _recipe(path: Path, release: Released) -> Recipe:
    try:
        return load(path)
    except RecipeError as error:
        raise RebuildError(
            f"the release's recipe cannot be used here: {error.what}",
            f"{release.where}, {release.config}.yaml",
            "where it names files of its own, name their folder with --files; where a column is "
            "unknown, install the package that brings it",
        ) from None


def _trust(release: Released, out: str) -> None:
    """Refuse a release whose lock was edited, and to build over the release itself."""
    noted = release.lock.get("digest")
    if noted is not None and noted != lock.digest(release.lock):
        raise RebuildError(
            "the lock was edited: its digest is another",
            release.where,
            "take the release from its tag, or from who made it",
        )
    if release.lock.get("dataset"):
        raise RebuildError(
            "this release measures somebody's dataset: no model wrote its rows",
            release.where,
            f"measure again with its recipe: prequery annotate --recipe {release.config}.yaml",
        )
    source = release.source
    if isinstance(source, FolderSource):
        fs, root = url_to_fs(out)
        if fs.unstrip_protocol(root) == source.fs.unstrip_protocol(source.root):
            raise RebuildError(
                "the rebuild would stand where the release is", out, "choose another --out"
            )


def _build(
    release: Released,
    recipe: Recipe,
    out: str,
    options: Options,
    show: Callable[[int], Shows],
) -> None:
    class Same(Magpie):
        """Cuts shards where the release does."""

        rows_per_shard = _rows_per_shard(release.lock)

    Same(recipe, options=options, show=show).download_and_prepare(out, file_format="parquet")


def _rows_per_shard(held: Lock) -> int:
    files: list[int] = [held["files"][name]["rows"] for name in sorted(held["files"])]
    return files[0] if len(files) > 1 else max(files[0], shards.ROWS_PER_SHARD)


def _compare(release: Released, again: Released) -> Rebuilt:
    old, new = release.lock, again.lock
    files = {
        name: name in new["files"] and new["files"][name]["sha256"] == told["sha256"]
        for name, told in old["files"].items()
    }
    then, now = old.get("packages", {}), new["packages"]
    packages = {
        name: (then[name], now.get(name)) for name in sorted(then) if then[name] != now.get(name)
    }
    rows = old["rows"]["sha256"] == new["rows"]["sha256"] if old.get("rows") else None
    return Rebuilt(files, rows, packages)


async def _meet(
    recipe: Recipe, release: Released, options: Options, say: Callable[[str], None]
) -> None:
    """Refuse an endpoint that serves something else than the lock says, before it is paid."""
    async with models.asked(recipe, options, say) as asked:
        try:
            lock.hold(recipe, lock.pin(recipe, await models.meet(recipe, asked)))
        except RecipeError as error:
            raise RebuildError(
                f"the endpoint does not serve what the release was made with: {error.what}",
                f"{asked.generator.address}; {release.where}",
                "serve the model, revision and weights that the lock names",
            ) from None


class _Pair(NamedTuple):
    """A row and its slot's new one."""

    id: str
    likeness: Likeness
    part: str = ""
    old: str = ""
    new: str = ""


Said = list[tuple[str, str]]
"""Texts of a conversation, each with what it is."""


def _likenesses(
    recipe: Recipe, release: Released, again: Released, options: Options
) -> Iterator[_Pair]:
    """Compare every row of a release with its slot's new one, accepted or not."""
    conversations = CONVERSATION[recipe.shape]
    names = ["id", *conversations]
    rebuilt = _rows(again, names)
    head = next(rebuilt, None)
    with journals_of(recipe, options) as journals:
        if not journals.answers.header:
            raise RebuildError(
                "the answers of this rebuild are gone, so its rows cannot be compared",
                str(journals.answers.folder),
                "choose a new --out to have the rows written again",
            )
        voices = models.noted(journals.answers.header, {})
        for row in _rows(release, names):
            slot = slot_of(row["id"])
            while head is not None and slot_of(head["id"]) < slot:
                head = next(rebuilt, None)
            if head is not None and head["id"] == row["id"]:
                now = _said(head, conversations)
            else:
                asked = script(recipe, voices, slot, lambda _, number: number)
                now = _attempted(asked, journals.answers.get)
            yield _like(row["id"], _said(row, conversations), now)


def _rows(release: Released, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for table in release.tables(names):
        yield from table.to_pylist()


def _said(row: Mapping[str, Any], conversations: Sequence[str]) -> Said:
    """Return what user and assistant said in a row, in order."""
    found: Said = []
    for name in conversations:
        turns = {"user": 0, "assistant": 0}
        for message in row[name]:
            if message["role"] in turns:
                part = "instruction" if message["role"] == "user" else "response"
                what = (
                    name if name in ("chosen", "rejected") else f"{part} {turns[message['role']]}"
                )
                found.append((what, message["content"]))
                turns[message["role"]] += 1
    return found


def _attempted(running: Script, get: Callable[[Any], Answer | None]) -> Said:
    """Return what a slot that made no row said, as far as it came."""
    said: Said = []
    answers: list[Answer] | None = None
    try:
        while True:
            asked = running.send(answers)  # type: ignore[arg-type]
            held = [get(one.key) for one in asked]
            if None in held:
                return said
            answers = [answer for answer in held if answer is not None]
    except StopIteration as finished:
        attempt: Attempt = finished.value
        said.append(("instruction 0", attempt.instruction.text.strip()))
        said += [("response 0", turn.response.text.strip()) for turn in attempt.choices[:1]]
        return said


def _like(row_id: str, old: Said, new: Said) -> _Pair:
    """Say how far two conversations agree, and in which text they part."""
    if not new:
        return _Pair(row_id, "missing")
    if old == new:
        return _Pair(row_id, "identical")
    same = old[0] == new[0]
    likeness: Likeness = "same instruction" if same else "different"
    for (part, then), (_, now) in zip(old, new, strict=False):
        if then != now:
            return _Pair(row_id, likeness, part, then, now)
    longer, shorter = (old, new) if len(old) > len(new) else (new, old)
    part, text = longer[len(shorter)]
    return _Pair(row_id, likeness, part, *((text, "") if longer is old else ("", text)))


async def _locate(
    recipe: Recipe, options: Options, pairs: Sequence[_Pair], say: Callable[[str], None]
) -> list[Difference]:
    """Find the first token at which texts differ."""
    async with models.asked(recipe, options, say) as asked:
        own = len(await asked.generator.tokenize("") or [])
        found = []
        for pair in pairs:
            writer = asked.generator
            if asked.responder and not pair.part.startswith("instruction"):
                writer = asked.responder
            found.append(await _first(pair, writer, own))
    return found


async def _first(pair: _Pair, endpoint: Asks, own: int) -> Difference:
    """Return the first difference of two texts; `own` tokens are the endpoint's, not the text's."""
    if not pair.part:
        return Difference(pair.id, pair.likeness)
    common = _common(pair.old, pair.new)
    texts = (
        pair.old[common : common + EXCERPT_CHARS],
        pair.new[common : common + EXCERPT_CHARS],
    )
    then, now = await endpoint.tokenize(pair.old), await endpoint.tokenize(pair.new)
    if then is None or now is None:
        return Difference(pair.id, pair.likeness, pair.part, texts=texts)
    at = _common(then, now)
    ids = (then[at] if at < len(then) else None, now[at] if at < len(now) else None)
    return Difference(pair.id, pair.likeness, pair.part, at - own, ids, texts)


def _common(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return how long the common beginning of two sequences is."""
    pairs = zip(first, second, strict=False)
    return next(
        (at for at, (one, other) in enumerate(pairs) if one != other),
        min(len(first), len(second)),
    )


def to_json(made: Rebuilt | Comparison) -> dict[str, Any]:
    """Return a result as JSON takes it."""
    told = asdict(made)
    if isinstance(made, Comparison):
        return told | {"identical_ratio": made.identical_ratio}
    return told | {"identical": made.identical}
