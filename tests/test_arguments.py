from __future__ import annotations

import datetime
import decimal
import fractions
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from fllm_export import arguments
from fllm_export.errors import UsageError


class Series:
    """What a pandas Series has in common with an array, as far as NumPy asks."""

    def __init__(self, values: Any) -> None:
        self._values = np.asarray(values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self._values


@pytest.mark.parametrize("value", [8, np.int64(8), np.uint8(8), np.array(8)])
def test_integers(value: Any) -> None:
    found = arguments.integer(value, "k", least=1, most=8)
    assert found == 8
    assert type(found) is int


@pytest.mark.parametrize(
    "value",
    [True, np.True_, 8.0, np.float32(8), "8", None, [8], np.array([8]), 0, 9, pytest.param(10**5000, id="huge")],
)
def test_what_is_no_such_integer(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^k is .*; expected an integer from 1 to 8"):
        arguments.integer(value, "k", least=1, most=8)


@pytest.mark.parametrize("value", [1, 1.0, np.float16(1), np.int8(1), decimal.Decimal(1), fractions.Fraction(1)])
def test_real_numbers(value: Any) -> None:
    found = arguments.real(value, "budget_ms", least=0)
    assert found == 1.0
    assert type(found) is float


@pytest.mark.parametrize("value", [True, np.False_, "1", b"1", None, [1.0], -1, np.nan, np.inf, 10**400, 1j])
def test_what_is_no_such_number(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^budget_ms is .*; expected a finite number of 0 or more"):
        arguments.real(value, "budget_ms", least=0)


@pytest.mark.parametrize("value", [0, 0.0, -1, np.nan, "5", None])
def test_what_is_no_budget(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^budget_ms is .*; expected a finite number of milliseconds above 0"):
        arguments.milliseconds(value, "budget_ms")


def test_flags() -> None:
    assert arguments.flag(np.True_, "exact") is True
    for value in (1, "yes", None):
        with pytest.raises(UsageError, match=r"exact is .*; expected True or False"):
            arguments.flag(value, "exact")


@pytest.mark.parametrize("value", ["a/b", Path("a/b"), PurePosixPath("a/b")])
def test_paths(value: Any) -> None:
    assert arguments.path(value, "directory") == Path("a/b")


@pytest.mark.parametrize("value", [b"a", 5, None, "", "a\0b", ["a"]])
def test_what_is_no_path(value: Any) -> None:
    with pytest.raises(UsageError, match=r"directory is .*; expected a path"):
        arguments.path(value, "directory")


def test_names() -> None:
    assert arguments.one_of(np.str_("topk"), "mode", ("topk", "sample")) == "topk"
    for value in ("TOPK", 1, None, ["topk"], np.array(["topk", "topk"])):
        with pytest.raises(UsageError, match=r"mode is .*; expected one of topk, sample"):
            arguments.one_of(value, "mode", ("topk", "sample"))


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        iter,
        lambda v: (n for n in v),
        np.array,
        Series,
        lambda v: np.array(v, np.uint64),
        lambda v: np.array(v, object),
        lambda v: [np.int32(n) for n in v],
        lambda v: range(3, 9, 3),
    ],
)
def test_ids_of_any_integer_type(make: Callable[[list[int]], Any]) -> None:
    found = arguments.ids(make([3, 6]), "ids", 2)
    assert found.tolist() == [3, 6]
    assert found.dtype == np.int64


def test_ids_of_torch() -> None:
    torch = pytest.importorskip("torch")
    assert arguments.ids(torch.tensor([3, 6], dtype=torch.int32), "ids").tolist() == [3, 6]
    assert arguments.integer(torch.tensor(8), "k", least=1) == 8
    with pytest.raises(UsageError, match="k is"):
        arguments.integer(torch.tensor(True), "k", least=0)
    assert arguments.array(torch.ones(2, requires_grad=True), "rows").tolist() == [1.0, 1.0]
    with pytest.raises(UsageError, match=r"rows is a Tensor that NumPy cannot read .*BFloat16.*\.float\(\)\.cpu\(\)"):
        arguments.array(torch.ones(2, dtype=torch.bfloat16), "rows")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0, 2.0], r"ids is an array of float64, such as .*1\.0.*never converted"),
        ([1.9, 2.0], "float64"),
        (["1", "2"], "<U1"),
        ([True, False], "bool"),
        ([b"1", b"2"], "S1"),
        (np.array(["2020-01-01", "2020-01-02"], "datetime64[D]"), "datetime64"),
        ([datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)], r"ids\[0\] is datetime\.date"),
        ([1, None], r"ids\[1\] is None"),
        (np.array([1, 2.0], object), r"ids\[1\] is 2\.0"),
        ([1, 1 << 64], r"ids\[1\] is 18446744073709551616"),
        (np.array([1, 1 << 63], np.uint64), r"ids runs from 1 to 9223372036854775808"),
        ([-1, 2], "ids runs from -1 to 2"),
        ([1, 2, 3], r"shape \[3\]; expected integers \[2\], one per row"),
        ([[1, 2]], r"shape \[1, 2\]"),
        ([[1], [2, 3]], "ids is a list that NumPy cannot read"),
        ("12", "ids is '12'"),
        ({1: 2}, "ids is {1: 2}"),
        (5, r"shape \[\]"),
        (None, "ids is None"),
        ([], r"shape \[0\]"),
    ],
)
def test_ids_are_never_converted(values: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        arguments.ids(values, "ids", 2)


def test_no_ids_at_all() -> None:
    assert arguments.ids([], "deny").dtype == np.int64
