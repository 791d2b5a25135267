"""Opening a data set for a verb, with a word about the users that it leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fllm_export.cli.output import Output
from fllm_export.counted import counted

if TYPE_CHECKING:
    from fllm_export.evaluation.dataset import Dataset


def open_dataset(output: Output, directory: Path, *, strict: bool = False) -> Dataset:
    """Load a data set and say how many of its users have no training pair.

    Raises:
        BundleError: it is damaged or contradicts itself; with ``strict`` also when a user has no training pair.
    """
    from fllm_export.evaluation.dataset import Dataset

    data = Dataset.load(directory, strict=strict)
    if data.left_out:
        output.say(
            f"left out: {counted(data.left_out, 'user')} without a pair in train, and their pairs in other splits"
        )
    return data
