"""What users install: the wheel, in an environment of its own, without this checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

OPEN_EVERYTHING = """
import prequery
from prequery.bundled import bundled
from prequery.recipe import bundled_names, load
assert "site-packages" in prequery.__file__, prequery.__file__
assert [load(name).name for name in bundled_names()] == bundled_names() != []
assert "{{ recipe.name }}" in (bundled("dataset_cards") / "card.md.jinja").read_text()
assert "smollm2-demo" in prequery.Magpie.builder_configs
print("opened")
"""


def test_the_wheel_brings_all_that_it_needs(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")]
    subprocess.run(venv, check=True)
    binaries = tmp_path / "venv/bin"
    # Of all that is installed, Python compiles what is imported below and nothing else.
    pip = [sys.executable, "-m", "pip", "--python", str(binaries / "python"), "install"]
    pip += ["--quiet", "--no-compile", str(wheel)]
    installed = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr

    opened = subprocess.run(
        [str(binaries / "python"), "-c", OPEN_EVERYTHING],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    listed = subprocess.run(
        [str(binaries / "prequery"), "columns"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert opened.stdout == "opened\n", opened.stderr
    assert listed.returncode == 0, listed.stderr
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"prequery"}
    assert "prequery/py.typed" in names
