"""A model repository for Triton's Python backend."""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path
from string import Template

from fllm_export.bundle.bundle import Bundle
from fllm_export.errors import UsageError
from fllm_export.packing.context import FILES, copy_bundle, fresh_directory
from fllm_export.progress import Progress, silent

MODEL = Path(__file__).with_name("triton_model.py")
WARM_UP_TEXT = "a first text, before any request"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def pack_triton(
    bundle: Bundle, out: str | Path, *, name: str = "users", max_batch: int = 64, progress: Progress = silent
) -> Path:
    """Write a model repository with one model, version 1, which holds the bundle.

    Args:
        bundle: copied into it, every file checked against its hash.
        out: the new directory.
        name: of the model.
        max_batch: items per request at most.
        progress: told of bytes.

    Returns:
        The directory.

    Raises:
        BundleError: a file of the bundle is missing or damaged; nothing is left at ``out``.
        UsageError: there is something at ``out``, or the name is not one for a directory.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"the model name is {name!r:.60}",
            expected="letters, digits, hyphens, dots and underscores",
            fix="Rename it",
        )
    # As Triton reads strings from files: the number of bytes in 4 bytes, little-endian, then the bytes.
    text = WARM_UP_TEXT.encode()
    config = Template((FILES / "config.pbtxt").read_text("utf-8"))
    with fresh_directory(out, bundle) as fresh:
        model = fresh / name
        copy_bundle(bundle, model / "1" / "bundle", progress)
        shutil.copyfile(MODEL, model / "1" / "model.py")
        (model / "warmup").mkdir()
        (model / "warmup" / "text").write_bytes(struct.pack("<I", len(text)) + text)
        numbers = {"name": name, "dim": bundle.manifest.dim, "max_batch": max_batch}
        (model / "config.pbtxt").write_text(config.substitute(numbers), "utf-8")
    return Path(out)
