"""Directories made of symbolic links are read like others by every verb; names that lead outside are refused."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from fllm_export import Bundle, BundleError, Checkpoint
from fllm_export.cli.main import main


def of_files(source: Path, folder: Path) -> Path:
    """Every file is a link to a blob of another name, as in the Hugging Face cache."""
    for number, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
        blob = folder / "blobs" / str(number)
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blob)
        link = folder / "snapshot" / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return folder / "snapshot"


def of_a_mount(source: Path, folder: Path) -> Path:
    """What lies in the directory leads through ``..data``, itself a link, as Kubernetes mounts volumes."""
    shutil.copytree(source, folder / "mount" / "..2026_11_28")
    (folder / "mount" / "..data").symlink_to("..2026_11_28")
    for path in source.iterdir():
        (folder / "mount" / path.name).symlink_to(Path("..data") / path.name)
    return folder / "mount"


def of_the_whole(source: Path, folder: Path) -> Path:
    """The directory itself is a link, as in a Nix profile."""
    shutil.copytree(source, folder / "store" / "hash-name")
    (folder / "result").symlink_to(Path("store") / "hash-name")
    return folder / "result"


FORMS = (of_files, of_a_mount, of_the_whole)


def run(*arguments: object) -> dict[str, object]:
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("form", FORMS)
def test_every_verb_reads_a_bundle_of_links(form: Callable[[Path, Path], Path], tmp_path: Path) -> None:
    plain = Path(__file__).parents[1] / "format" / "v1" / "int8"
    linked = form(plain, tmp_path)
    users = [run("query", path, "a film about jazz", "-k", 5)["items"] for path in (plain, linked)]
    assert users[0] == users[1]
    assert run("verify", linked)["bytes"] == run("verify", plain)["bytes"]
    assert run("verify", linked / "users")["intact"] is True
    run("pack", linked, "-o", tmp_path / "bundle.tar")
    with tarfile.open(tmp_path / "bundle.tar") as archive:
        assert all(member.isfile() for member in archive)
        assert {member.name.split("/")[0] for member in archive} == {linked.name}
        archive.extractall(tmp_path / "unpacked", filter="data")
    Bundle.load(tmp_path / "unpacked" / linked.name).verify()


@pytest.mark.parametrize("form", FORMS)
def test_a_built_bundle_of_links_is_inspected_and_verified(
    form: Callable[[Path, Path], Path], tiny_bundle: Bundle, tmp_path: Path
) -> None:
    linked = form(tiny_bundle.path, tmp_path)
    assert run("inspect", linked) == run("inspect", tiny_bundle.path)
    assert Bundle.load(linked).verify() == tiny_bundle.verify()


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_of_links_is_the_same_checkpoint(
    form: Callable[[Path, Path], Path], tiny_checkpoint: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    tiny_checkpoint("llama", users=20).save(tmp_path / "plain")
    linked = form(tmp_path / "plain", tmp_path / "linked")
    assert Checkpoint.load(linked).fingerprint() == Checkpoint.load(tmp_path / "plain").fingerprint()
    assert run("inspect", linked)["users"] == 20
    Checkpoint.load(linked).save(tmp_path / "copy")
    assert not [path for path in (tmp_path / "copy").rglob("*") if path.is_symlink()]


@pytest.mark.parametrize("name", ["../x", "/etc/hostname", "a/../../x", "./x", "a//b", "", "a\0b"])
@pytest.mark.parametrize("verb", ["verify", "pack", "query"])
def test_names_that_lead_outside_are_refused_by_every_verb(name: str, verb: str, tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[1] / "format" / "v1" / "int8", tmp_path / "bundle")
    manifest = tmp_path / "bundle" / "manifest.json"
    document = json.loads(manifest.read_text())
    document["files"][name] = {"bytes": 1, "sha256": "0"}
    manifest.write_text(json.dumps(document))
    more = {"verify": [], "pack": ["-o", str(tmp_path / "b.tar")], "query": ["jazz"]}[verb]
    result = CliRunner().invoke(main, [verb, str(tmp_path / "bundle"), *more])
    assert result.exit_code == 4, result.output
    assert "expected names of files inside its directory" in result.stderr
    assert not (tmp_path / "b.tar").exists()
    with pytest.raises(BundleError, match="names of files inside"):
        Bundle.load(tmp_path / "bundle")


@pytest.mark.parametrize("entry", [{"bytes": "1"}, {"bytes": True}, {"bytes": -1}, {"sha256": 3}, {"further": 1}])
def test_entries_of_another_kind_are_refused(entry: dict[str, object], tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[1] / "format" / "v1" / "int8", tmp_path / "bundle")
    manifest = tmp_path / "bundle" / "manifest.json"
    document = json.loads(manifest.read_text())
    document["files"]["tokenizer.json"] |= entry
    manifest.write_text(json.dumps(document))
    with pytest.raises(BundleError, match="is not a manifest"):
        Bundle.load(tmp_path / "bundle")


def test_a_pipe_in_a_bundle_is_never_waited_for(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[1] / "format" / "v1" / "int8", tmp_path / "bundle")
    (tmp_path / "bundle" / "tokenizer.json").unlink()
    os.mkfifo(tmp_path / "bundle" / "tokenizer.json")
    for more in ([], ["--out", str(tmp_path / "b.tar")], ["--triton", str(tmp_path / "b")]):
        verb = "pack" if more else "verify"
        result = CliRunner().invoke(main, [verb, str(tmp_path / "bundle"), *more])
        assert result.exit_code == 4, result.output
        assert "is missing" in result.stderr
