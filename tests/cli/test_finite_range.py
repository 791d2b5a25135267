from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fllm_export.cli.main import main


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    ("verb", "option"),
    [
        ("estimate", "--memory-gb"),
        ("estimate", "--disk-gb"),
        ("sweep", "--seconds"),
        ("sweep", "--target-recall"),
        ("sweep", "--budget-ms"),
        ("sweep", "--call-budget-ms"),
    ],
)
def test_numbers_that_are_not_finite_are_refused_before_anything_is_measured(
    verb: str, option: str, number: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "rows.npy", np.ones((4, 2), np.float32))
    given = {
        "estimate": ["--rows", "1e3", "--dim", "8", "--folder", str(tmp_path)],
        "sweep": [f"{tmp_path}/rows.npy", "--items", f"{tmp_path}/rows.npy", "--out", f"{tmp_path}/out", "-k", "1"],
    }
    result = CliRunner().invoke(main, [verb, *given[verb], option, number])
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr
    assert not (tmp_path / "out").exists()
