"""Print what a release asks of the Hub, and what it sends when 10 % of rows are appended.

Usage: scripts/measure_release.py [ROWS]

Against the Hub of the tests, over LFS and over xet, for two ways to cut the rows: ten shards, and
all in one. `another machine` has none of the caches of the one that released before.
"""

import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

from huggingface_hub import close_session, constants  # noqa: E402
from huggingface_hub.utils import _xet  # noqa: E402

from built_folder import Wanted, build  # noqa: E402
from hub import Hub  # noqa: E402
from prequery.release import content, hub  # noqa: E402
from prequery.release.content import Content  # noqa: E402
from prequery.release.hub import Wishes  # noqa: E402
from prequery.release.wire import Wire  # noqa: E402

REPO = "acme/data"
WORDS = [f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in ("n", "rk", "st", "l", "")]


def texts(slot: int) -> tuple[str, str]:
    """Return an instruction of 12 words and a response of 120, the same for the same slot."""
    drawn = random.Random(slot)
    return " ".join(drawn.choices(WORDS, k=12)), " ".join(drawn.choices(WORDS, k=120))


@contextmanager
def hub_of_tests(*, over_xet: bool) -> Iterator[Hub]:
    """Serve a Hub, and point huggingface_hub of this process at it."""
    with Hub().serving() as served, tempfile.TemporaryDirectory() as home:
        os.environ.update(served.environment(Path(home)))
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, served.url)
        constants.HUGGINGFACE_CO_URL_TEMPLATE = template
        constants.ENDPOINT = served.url
        constants.HF_HUB_DISABLE_XET = not over_xet
        if over_xet:
            os.environ.pop("HF_HUB_DISABLE_XET")
        os.environ["HF_XET_CACHE"] = f"{home}/xet"
        forget()
        yield served
        close_session()


def forget() -> None:
    """Be another machine to xet: a session and a cache of its own."""
    os.environ["HF_XET_CACHE"] = tempfile.mkdtemp(dir=os.environ["HF_HOME"])
    _xet._GLOBAL_XET_HOLDER = _xet.XetSessionHolder()


def released(served: Hub, one: Content) -> tuple[list[str], int, int]:
    """Release; return the calls, the bytes of data that were sent, and all bytes."""
    since = len(served.calls)
    hub.release(one, Wire(REPO, served.url, served.token), Wishes())
    calls = served.calls[since:]
    data = sum(call.received for call in calls if call.name in ("lfs-upload", "xorb-upload"))
    return [call.name for call in calls], data, sum(call.received for call in calls)


def folded(names: list[str]) -> str:
    """Return names in their order, repetitions counted."""
    runs = [(name, len(list(same))) for name, same in groupby(names)]
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in runs)


def main() -> None:
    """Measure and print."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    root = Path(tempfile.mkdtemp())
    print(f"{rows} rows, then {rows + rows // 10}")
    for cut, rows_per_shard in (("ten shards", rows // 10), ("one shard", 10 * rows)):
        versions = []
        for version, count in (("1.0.0", rows), ("1.1.0", rows + rows // 10)):
            wanted = Wanted(version=version, rows=count, rows_per_shard=rows_per_shard, texts=texts)
            versions.append(content.read(str(build(root / f"{cut} {version}", wanted))))
        size = sum(f.size for path, f in versions[1].files.items() if path.endswith(".parquet"))
        print(f"\n{cut}: {size:,} bytes of Parquet in the second version")
        for over_xet in (False, True):
            way = "xet" if over_xet else "LFS"
            for other in (False, True) if over_xet else (False,):
                with hub_of_tests(over_xet=over_xet) as served:
                    first, first_data, _ = released(served, versions[0])
                    if other:
                        forget()
                    second, data, all_bytes = released(served, versions[1])
                    again, again_data, _ = released(served, versions[1])
                place = ", another machine" if other else ""
                print(
                    f"{way}{place}: {first_data:,} bytes of data, then {data:,} "
                    f"({data / size:.0%} of it; {all_bytes:,} with all else), repeat {again_data}"
                )
                if not other:
                    print(f"  first:  {folded(first)}")
                    print(f"  second: {folded(second)}")
                    print(f"  repeat: {folded(again)}")


if __name__ == "__main__":
    main()
