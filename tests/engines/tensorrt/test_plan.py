"""What a plan's header says is read before any library sees it; here headers are doctored."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from fllm_export.engines.tensorrt.library import Library
from fllm_export.engines.tensorrt.plan import RECORDS, Header, Plan, check_plan, plan_name, read_header, read_plans
from fllm_export.errors import BundleError, FllmError, HardwareError

VERSION = (1, 7, 1, 116)
LIBRARY = Library("tensorrt_rtx", None, "1.7.1.116")
NAME = plan_name("int8_limbs", "tensorrt_rtx", "1.7.1.116", "sm89")
PLAN = Plan(NAME, "head/int8_limbs.onnx", "tensorrt_rtx", "1.7.1.116", "sm89", "int8_limbs", True)
REBUILD = "fllm-export plan BUNDLE --target sm89"


def write(path: Path, *, version: tuple[int, ...] = VERSION, bits: int = 8, size: int = 100, **other: bytes) -> Path:
    first, second = other.get("first", b"vtrt"), other.get("second", b"vtrt")
    head = first + bytes(12) + struct.pack("<Q", size) + bytes(version) + second + struct.pack("<I", bits)
    path.write_bytes(head.ljust(100, b"\0"))
    return path


def test_a_header_is_read(tmp_path: Path) -> None:
    assert read_header(write(tmp_path / "a.plan", bits=8 | 16)) == Header("1.7.1.116", ("sm89", "sm120"))
    assert read_header(write(tmp_path / "b.plan", first=b"ftrt")) is None


def test_a_sound_plan_passes(tmp_path: Path) -> None:
    write(tmp_path / NAME)
    check_plan(tmp_path, PLAN, LIBRARY, "sm89", REBUILD)


@pytest.mark.parametrize(
    ("doctored", "message"),
    [
        ({"version": (1, 6, 0, 99)}, r"for sm89, version 1\.6\.0\.99; expected sm89, version 1\.7\.1\.116"),
        ({"bits": 16}, r"for sm120, version 1\.7\.1\.116; expected sm89"),
        ({"bits": 0}, "no known GPU"),
        ({"size": 99}, "has 100 bytes; expected 99"),
        ({"second": b"xxxx"}, "damaged header"),
        ({"first": b"ftrt"}, "no plan of TensorRT-RTX"),
    ],
)
def test_a_file_that_contradicts_its_record_is_refused(
    tmp_path: Path, doctored: dict[str, object], message: str
) -> None:
    write(tmp_path / NAME, **doctored)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=message):
        check_plan(tmp_path, PLAN, LIBRARY, "sm89", REBUILD)


@pytest.mark.parametrize(
    ("plan", "library", "here", "found", "expected"),
    [
        (PLAN, LIBRARY, "sm120", "built for sm89", "expected sm120, the GPU here"),
        (PLAN, replace(LIBRARY, version="1.8.0.1"), "sm89", "built by tensorrt_rtx 1.7.1.116", "tensorrt_rtx 1.8.0.1"),
        (PLAN, Library("tensorrt", None, "11.4.0.106"), "sm89", "built by tensorrt_rtx", "tensorrt 11.4.0.106"),
    ],
)
def test_another_machine_is_told_in_words_with_the_command(
    tmp_path: Path, plan: Plan, library: Library, here: str, found: str, expected: str
) -> None:
    write(tmp_path / NAME)
    with pytest.raises(HardwareError) as caught:
        check_plan(tmp_path, plan, library, here, REBUILD)
    for part in (found, expected, REBUILD):
        assert part in str(caught.value)


def test_short_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"vtrt\0\0")
    with pytest.raises(BundleError, match="6 bytes; expected at least a header"):
        check_plan(tmp_path, PLAN, LIBRARY, "sm89", REBUILD)
    with pytest.raises(BundleError, match="cannot be read"):
        check_plan(tmp_path, replace(PLAN, file="gone.plan"), LIBRARY, "sm89", REBUILD)


def test_a_plan_of_the_full_library_goes_by_its_record(tmp_path: Path) -> None:
    plan = replace(PLAN, library="tensorrt", version="11.4.0.106", architecture="sm90")
    write(tmp_path / NAME, first=b"ftrt")
    library = Library("tensorrt", None, "11.4.0.106")
    check_plan(tmp_path, plan, library, "sm90", REBUILD)
    with pytest.raises(HardwareError, match="built for sm90"):
        check_plan(tmp_path, plan, library, "sm100", REBUILD)


@pytest.mark.parametrize(
    "content",
    ["[]", "{", '{"format_version": 1}', '{"format_version": 2, "plans": []}', '{"format_version": 1, "plans": [3]}'],
)
def test_damaged_records(tmp_path: Path, content: str) -> None:
    assert read_plans(tmp_path) == []
    (tmp_path / "plans.json").write_text(content)
    with pytest.raises(FllmError):
        read_plans(tmp_path)


def test_records_round_trip(tmp_path: Path) -> None:
    document = {"format_version": 1, "plans": [PLAN.to_dict()]}
    (tmp_path / "plans.json").write_text(json.dumps(document))
    assert read_plans(tmp_path) == [PLAN]


GOOD = {
    "file": "a.plan",
    "model": "head/int8_limbs.onnx",
    "library": "tensorrt",
    "version": "11.4.0.106",
    "architecture": "sm90",
    "precision": "int8_limbs",
    "fused": None,
}


def test_records_of_older_plans_are_read(tmp_path: Path) -> None:
    (tmp_path / RECORDS).write_text(json.dumps({"format_version": 1, "plans": [GOOD, {**GOOD, "k": 256}]}))
    assert [plan.k for plan in read_plans(tmp_path)] == [None, 256]


@pytest.mark.parametrize(
    "change",
    [
        {"file": 5},
        {"file": "../../../etc/passwd"},
        {"file": "../a.plan"},
        {"file": "a.txt"},
        {"k": "abc"},
        {"k": True},
        {"chunk_rows": -1},
        {"precision": ["fp16"]},
        {"fused": "yes"},
        {"surplus": 1},
    ],
)
def test_hostile_records_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / RECORDS).write_text(json.dumps({"format_version": 1, "plans": [{**GOOD, **change}]}))
    with pytest.raises(BundleError, match="Remove it and build the plans again"):
        read_plans(tmp_path)


@pytest.mark.parametrize("plans", [{"a": 1}, [5], [{"file": "a.plan"}], None])
def test_what_is_no_list_of_records_is_refused(tmp_path: Path, plans: object) -> None:
    (tmp_path / RECORDS).write_text(json.dumps({"format_version": 1, "plans": plans}))
    with pytest.raises(BundleError, match="Remove it and build the plans again"):
        read_plans(tmp_path)
