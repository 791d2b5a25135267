"""Paths that cannot be read or written, in every verb: usage errors; limits of the system: exit code 5."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fllm_export import Bundle, Checkpoint, UsageError, UserTable
from fllm_export.cli.main import main


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.stderr


@pytest.fixture
def bad(tmp_path: Path) -> dict[str, Path]:
    """Paths that nothing can be written to or read from."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "below",
        "deep below a file": tmp_path / "file" / "a" / "b",
        "too long a name": tmp_path / ("x" * 300),
        "a link to itself": tmp_path / "loop" / "x",
    }


KINDS = ["a file", "below a file", "deep below a file", "too long a name", "a link to itself"]


@pytest.mark.parametrize("kind", KINDS)
def test_where_a_build_or_a_training_cannot_write(
    kind: str, bad: dict[str, Path], tiny_checkpoint: Checkpoint, item_texts: list[str], tmp_path: Path
) -> None:
    (tmp_path / "items.txt").write_text("\n".join(item_texts))
    checkpoint = tiny_checkpoint("bert")
    source = checkpoint.base.parent
    code, message = run("build", source, "--out", bad[kind], "-k", 5, "--calibration", tmp_path / "items.txt")
    assert code == 2, message
    assert str(bad[kind]) in message or "/loop" in message
    with pytest.raises(UsageError):
        checkpoint.save(bad[kind])
    with pytest.raises(UsageError):
        UserTable.create(bad[kind], np.ones((3, 2), np.float32))
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "items.txt", "loop"]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_where_no_archive_can_be_written(kind: str, bad: dict[str, Path], tiny_bundle: Bundle, tmp_path: Path) -> None:
    code, message = run("pack", tiny_bundle.path, "--out", bad[kind])
    assert code == 2, message
    code, message = run("pack", tiny_bundle.path, "--out", tmp_path)
    assert code == 2
    assert "is a directory" in message


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_read(kind: str, bad: dict[str, Path], tiny_bundle: Bundle) -> None:
    for verb in ("inspect", "verify", "query", "bench", "pack", "build", "train", "evaluate"):
        code, message = run(verb, bad[kind], *(["text"] if verb == "query" else []))
        assert code == 2, (verb, message)
    for verb in ("query", "bench"):
        code, message = run(verb, tiny_bundle.path, "--file", bad[kind].with_name(bad[kind].name + ".txt"))
        assert code == 2, (verb, message)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_{limit}, ({value}, {value}))
from fllm_export.cli.main import main
main(sys.argv[1:])
"""


def run_with(limit: str, value: int, *arguments: object) -> tuple[int, str]:
    code = LIMITED.format(limit=limit, value=value)
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return done.returncode, done.stderr


def test_a_table_above_the_limit_of_memory_is_exit_5(tmp_path: Path) -> None:
    chunks = (np.ones((1 << 14, 1 << 10), np.float32) for _ in range(2))
    UserTable.create(tmp_path / "users", chunks, quant="fp32", shard_bytes=1 << 30)
    code, message = run_with("AS", 200 << 20, "inspect", tmp_path / "users")
    assert code == 5, message
    assert "00000.safetensors: Cannot allocate memory" in message
    assert "ulimit -v" in message


def test_an_archive_above_the_limit_of_a_file_is_exit_5(tiny_bundle: Bundle, tmp_path: Path) -> None:
    code, message = run_with("FSIZE", 5000, "pack", tiny_bundle.path, "--out", tmp_path / "a.tar")
    assert code == 5, message
    assert "File too large" in message
    assert not list(tmp_path.iterdir())
