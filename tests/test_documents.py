"""Documents that cannot go stale: README, recipe keys, commands, the shape of the house."""

import ast
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from typer.main import get_command

import prequery
from prequery import recipe, rows
from prequery.cli import app
from prequery.columns import ALL

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "builder/prequery"
README = (ROOT / "README.md").read_text()


def tree() -> list[str]:
    """Return the modules of the README's tree, in its order, as paths in the package."""
    block = README.split("builder/prequery/\n", 1)[1].split("```", 1)[0]
    names, folder = [], ""
    for line in block.splitlines():
        found = re.match(r"^([│ ]*)[├└]── (\S+)\s+\S", line)
        assert found, f"this line of the tree has no phrase: {line!r}"
        depth, name = len(found[1]) // 4, found[2]
        if name.endswith("/"):
            folder = name
            continue
        names.append((folder if depth else "") + name)
    return names


def modules() -> list[str]:
    paths = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    return sorted(str(path) for path in paths if path.name != "__init__.py")


def test_the_readmes_tree_is_the_folder() -> None:
    assert sorted(tree()) == modules()


def imported(path: Path) -> set[str]:
    """Return the package's own modules that a module imports, as names under `prequery`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prequery"):
            base = (node.module or "").removeprefix("prequery").lstrip(".")
            for alias in node.names:
                found |= {base, f"{base}.{alias.name}".lstrip(".")}
    return found


def test_imports_only_point_up_the_tree() -> None:
    order = [name.removesuffix(".py").replace("/", ".") for name in tree()]

    for position, name in enumerate(order):
        path = PACKAGE / (name.replace(".", "/") + ".py")
        below = imported(path) & set(order[position + 1 :])
        assert not below, f"{name} imports {below}, which stands below it in the README's tree"


def test_every_command_is_in_the_readme() -> None:
    group = get_command(app)
    commands = getattr(group, "commands", {})
    assert commands

    for name, command in commands.items():
        subcommands = getattr(command, "commands", {None: None})
        for sub in subcommands:
            words = f"prequery {name}" + (f" {sub}" if sub else "")
            assert words in README, f"the README lacks `{words}`"


def test_every_command_that_an_error_or_the_readme_names_exists() -> None:
    group = get_command(app)
    known = set(getattr(group, "commands", {}))
    texts = [README, *(path.read_text() for path in PACKAGE.rglob("*.py"))]

    named = {word for text in texts for word in re.findall(r"`?prequery ([a-z]+)\b[^.]", text)}
    commands = named & {"build", "probe", "serve", "recipe", "columns", "weights", "plan", "card"}

    assert commands <= known


def test_every_recipe_key_is_in_the_readme() -> None:
    for kind in (
        recipe.Recipe,
        recipe.Generator,
        recipe.Setting,
        recipe.FollowUp,
        recipe.Preference,
        recipe.Endpoint,
        recipe.Release,
        recipe.Annotation,
        recipe.Dataset,
        recipe.Fields,
    ):
        for field in fields(kind):
            if field.name not in ("source", "text"):
                assert f"`{field.name}`" in README, f"the README lacks the key `{field.name}`"


def test_every_field_of_a_row_is_in_the_readme() -> None:
    names = [*rows.FIELDS, *rows.PREFERENCE] + [name for column in ALL for name in column.features]

    assert [name for name in names if f"`{name}`" not in README] == []


def test_every_relative_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_no_document_or_module_names_a_machine_or_a_registry_host() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a checkout")
    # Split, so that this file itself is clean.
    words = [
        "/wo" + "rk/",
        "/ro" + "ot/",
        "/op" + "t/py",
        "py" + "pi.org",
        "TO" + "DO",
        "FIX" + "ME",
    ]

    for name in listed.stdout.split():
        text = (ROOT / name).read_text(errors="replace") if (ROOT / name).is_file() else ""
        assert not [word for word in words if word in text], name


def test_the_public_names_are_importable() -> None:
    assert {name for name in prequery.__all__ if hasattr(prequery, name)} == set(prequery.__all__)


def test_help_starts_without_loading_datasets() -> None:
    code = (
        "import sys; from prequery.cli import app; from prequery import columns, recipe; "
        "assert not {'datasets', 'pyarrow', 'numpy'} & set(sys.modules), 'slow start'"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
