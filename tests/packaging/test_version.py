"""The package, its metadata, libfllm and the binding's stub agree with each other."""

from __future__ import annotations

import ctypes
import importlib.metadata
from pathlib import Path

import pytest

import fllm_export


def test_metadata_and_package_have_one_version() -> None:
    assert importlib.metadata.version("fllm-export") == fllm_export.__version__


def test_libfllm_has_the_version_of_the_package() -> None:
    found = list(Path(importlib.metadata.distribution("fllm-export").locate_file("fllm_export/lib")).glob("libfllm.so"))
    if not found:
        pytest.skip("this installation has no libfllm beside it")
    library = ctypes.CDLL(str(found[0]))
    library.fllm_version.restype = ctypes.c_char_p
    assert library.fllm_version().decode() == fllm_export.__version__
