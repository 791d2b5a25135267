"""A plan file: its name, its record, and what its own header says, read before any library loads it.

TensorRT refuses a plan of another version or GPU with a number and a line of its log. Here the reasons are found
first and told in words. TensorRT-RTX writes both into the first 36 bytes (as seen in version 1.7.1):

======  =====  ==========================================================
offset  bytes  meaning
======  =====  ==========================================================
0       4      ``vtrt``
16      8      bytes of the file from offset 0, little endian, less a tail
24      4      version: major, minor, patch, build, one byte each
28      4      ``vtrt``
32      4      a bit for each architecture it was built for
======  =====  ==========================================================

Plans of the full TensorRT hold none of this in a documented place; for them the record beside the plan speaks.
"""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fllm_export.engines.tensorrt.library import Library
from fllm_export.errors import BundleError, HardwareError
from fllm_export.strict_json import read_versioned

RECORDS = "plans.json"
"""The file with the records of a folder of plans."""

RECORDS_VERSION = 1

_MAGIC = b"vtrt"
_HEADER = struct.Struct("<4s12xQ4B4sI")
_ARCHITECTURES = {1: "sm75", 2: "sm80", 4: "sm86", 8: "sm89", 16: "sm120", 32: "sm121"}


_REQUIRED = {"file", "model", "library", "version", "architecture", "precision", "fused"}
_OPTIONAL: dict[str, tuple[type, ...]] = {
    "k": (int,),
    "chunk_rows": (int,),
    "max_batch": (int,),
    "cosine": (float, int),
}
_MEND = "Remove it and build the plans again"


@dataclass(frozen=True)
class Plan:
    """The record of one plan.

    Attributes:
        file: name of the plan in its folder.
        model: the ONNX file that it was made from, relative to the bundle, and so what it is rebuilt from.
        library: ``tensorrt`` or ``tensorrt_rtx``.
        version: the library's version.
        architecture: the GPU that it is for, such as ``sm89``.
        precision: ``fp16``, ``bf16`` or ``fp8`` for an encoder; a head's form.
        fused: whether the builder's log shows the table going into an 8-bit product uncopied; None when the plan is
            no head, or the log says nothing about layers.
        k: users that a head plan returns of a tile.
        chunk_rows: a head plan's tiles have a multiple of so many rows.
        max_batch: items of a call at most.
        cosine: the least cosine of an item vector of the encoder in this precision with the float32 one's; None where
            they were not compared.
    """

    file: str
    model: str
    library: str
    version: str
    architecture: str
    precision: str
    fused: bool | None
    k: int | None = None
    chunk_rows: int | None = None
    max_batch: int | None = None
    cosine: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class Header:
    """What the first bytes of a TensorRT-RTX plan say.

    Attributes:
        version: such as ``1.7.1.116``.
        architectures: those it was built for.
    """

    version: str
    architectures: tuple[str, ...]


def plan_name(stem: str, library: str, version: str, architecture: str) -> str:
    """Return a plan's file name, such as ``int8_limbs-tensorrt_rtx-1.7.1.116-sm89.plan``."""
    return f"{stem}-{library}-{version}-{architecture}.plan"


def read_plans(folder: Path) -> list[Plan]:
    """Return the records of a folder of plans; none when it has no records.

    Raises:
        BundleError: they cannot be read.
    """
    path = folder / RECORDS
    if not path.is_file():
        return []
    document = read_versioned(path, RECORDS_VERSION)
    records = document.get("plans")
    if not isinstance(records, list):
        raise BundleError(f"{path} lists no plans", expected="`plans`, a list", fix=_MEND)
    return [_record(path, record) for record in records]


def _record(path: Path, record: Any) -> Plan:
    """Return a record, of which nothing was taken for granted."""
    if not isinstance(record, dict) or not _REQUIRED <= set(record) <= _REQUIRED | set(_OPTIONAL):
        raise BundleError(f"{path} holds a record {record!r:.80}", expected="the fields of a plan", fix=_MEND)
    texts = all(isinstance(record[name], str) for name in _REQUIRED - {"fused"})
    others = all(
        record.get(name) is None or (type(record[name]) in kinds and record[name] > 0)
        for name, kinds in _OPTIONAL.items()
    )
    if not (texts and others and record["fused"] in (None, True, False)):
        raise BundleError(f"{path} holds a record {record!r:.80}", expected="fields of a plan's types", fix=_MEND)
    if Path(record["file"]).name != record["file"] or not record["file"].endswith(".plan"):
        raise BundleError(f"{path} names the file {record['file']!r}", expected="a plan beside it", fix=_MEND)
    return Plan(**record)


def read_header(path: Path) -> Header | None:
    """Read a plan's header; None when it is not TensorRT-RTX's.

    Raises:
        BundleError: the file is missing, or too short for its own header.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error})", fix="Build the plan again") from None
    if not head.startswith(_MAGIC):
        return None
    size = path.stat().st_size
    if len(head) < _HEADER.size:
        raise BundleError(f"{path} has {size} bytes", expected="at least a header", fix="Build the plan again")
    _, declared, *version, magic, bits = _HEADER.unpack(head)
    if magic != _MAGIC:
        raise BundleError(f"{path} has a damaged header", expected=f"{_MAGIC!r} twice", fix="Build the plan again")
    if declared != size:
        raise BundleError(f"{path} has {size} bytes", expected=f"{declared}, as its header says", fix="Copy it again")
    architectures = tuple(name for bit, name in _ARCHITECTURES.items() if bits & bit)
    return Header(".".join(map(str, version)), architectures)


def check_file(folder: Path, plan: Plan, rebuild: str) -> None:
    """Compare a plan's file with its record.

    Raises:
        BundleError: the file is missing or damaged, or contradicts its record.
    """
    path = folder / plan.file
    header = read_header(path)
    if (header is not None) != (plan.library == "tensorrt_rtx"):
        raise BundleError(
            f"{path} is {'a' if header else 'no'} plan of TensorRT-RTX",
            expected=f"one of {plan.library}",
            fix=f"Run: {rebuild}",
        )
    if header is not None and (header.version != plan.version or plan.architecture not in header.architectures):
        raise BundleError(
            f"{path} says it is for {', '.join(header.architectures) or 'no known GPU'}, version {header.version}",
            expected=f"{plan.architecture}, version {plan.version}, as {RECORDS} has it",
            fix=f"Run: {rebuild}",
        )


def check_plan(folder: Path, plan: Plan, library: Library, architecture: str, rebuild: str) -> None:
    """Say in words why a plan cannot be loaded, if it cannot.

    Args:
        folder: where the plan is.
        plan: its record.
        library: the TensorRT that would load it.
        architecture: the GPU that would run it.
        rebuild: the command that makes the plan again, for the message.

    Raises:
        HardwareError: the plan is of another library, version or architecture.
        BundleError: the file is missing or damaged, or contradicts its record.
    """
    check_file(folder, plan, rebuild)
    check_machine(folder, plan, library, architecture, rebuild)


def check_machine(folder: Path, plan: Plan, library: Library, architecture: str, rebuild: str) -> None:
    """Compare a plan's record with the library and the GPU that are there; the arguments are those of check_plan.

    Raises:
        HardwareError: the plan is of another library, version or architecture.
    """
    path = folder / plan.file
    if plan.library != library.name or plan.version != library.version:
        raise HardwareError(
            f"{path} was built by {plan.library} {plan.version}",
            expected=f"{library.name} {library.version}, which is installed here",
            fix=f"Run: {rebuild}",
        )
    if plan.architecture != architecture:
        raise HardwareError(
            f"{path} was built for {plan.architecture}", expected=f"{architecture}, the GPU here", fix=f"Run: {rebuild}"
        )
