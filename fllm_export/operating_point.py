"""``operating_point.json``: the setting that a sweep picked, for those who build, open and ask tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fllm_export import arguments
from fllm_export.errors import BundleError, UsageError
from fllm_export.files import publish_json
from fllm_export.strict_json import read_versioned

FILE_NAME = "operating_point.json"
FORMAT_VERSION = 2
"""Of points whose table has refinement rows; all others are written in version 1, which older releases read too."""

_PARTS = {
    "table": ("quant", "dim", "sketch", "cluster", "refine"),
    "open": ("engine", "threads", "exact", "log_probs", "candidates"),
    "call": ("batch", "budget_ms"),
}
_OF_REFINEMENT = ("refine", "candidates")


@dataclass(frozen=True)
class OperatingPoint:
    """A table and a way to search it.

    Attributes:
        quant: codec of the table; for building, like the next three and ``refine``.
        dim: dimension of the rows that are scanned.
        sketch: whether it has a sketch.
        cluster: whether its tiles are clustered.
        engine: what executes searches; for opening, like the next three.
        threads: threads of a call.
        exact: what ``topk`` takes where its caller does not say.
        log_probs: likewise.
        batch: items per call when it was measured; for the caller, like the next.
        budget_ms: budget per call when it was measured, or None. Opening does not set it: pass it to ``topk``.
        refine: codec of the table's refinement rows, or ``no``.
        candidates: for opening: ``refine`` of ``topk`` where its caller does not say; 0 without refinement rows.
        why: what was required, what was measured and under which conditions, for people.

    Raises:
        UsageError: a value is of another type.
    """

    quant: str
    dim: int
    sketch: bool
    cluster: bool
    engine: str
    threads: int
    exact: bool
    log_probs: str
    batch: int
    budget_ms: float | None
    refine: str = "no"
    candidates: int = 0
    why: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for name in ("dim", "threads", "batch"):
            arguments.integer(getattr(self, name), name, least=1)
        arguments.integer(self.candidates, "candidates", least=0)
        for name in ("sketch", "cluster", "exact"):
            arguments.flag(getattr(self, name), name)
        for name in ("quant", "engine", "log_probs", "refine"):
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"{name} is {getattr(self, name)!r}", expected="a name")
        if self.budget_ms is not None:
            arguments.milliseconds(self.budget_ms, "budget_ms")

    @property
    def stored_as(self) -> str | None:
        """The verb that stores rows as they were measured, ``build`` or ``users create``; None where it is not said."""
        found: Any = self.why
        for name in ("about", "subject", "stored_as"):
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, str) else None

    @classmethod
    def of(cls, value: OperatingPoint | str | Path) -> OperatingPoint:
        """Return an operating point as it is, or that of a file.

        Raises:
            UsageError: the value is neither.
            BundleError: the file is missing, damaged or of a newer format.
        """
        return value if isinstance(value, OperatingPoint) else cls.load(arguments.path(value, "operating_point"))

    @classmethod
    def load(cls, path: Path) -> OperatingPoint:
        """Read what :meth:`save` wrote.

        Raises:
            BundleError: the file is missing, damaged or of a newer format.
        """
        document = read_versioned(path, FORMAT_VERSION, fix=f"Name the {FILE_NAME} of a sweep")
        try:
            left_out = _OF_REFINEMENT if document["format_version"] == 1 else ()
            values = {
                name: document[part][name] for part, names in _PARTS.items() for name in names if name not in left_out
            }
            return cls(**values, why=dict(document["why"]))
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise BundleError(
                f"{path} is not an operating point ({error})", expected="a file that fllm-export sweep wrote"
            ) from error

    def save(self, path: Path) -> None:
        """Write the point, all or nothing."""
        values, version = asdict(self), 1 if self.refine == "no" else FORMAT_VERSION
        left_out = _OF_REFINEMENT if version == 1 else ()
        parts = {part: {name: values[name] for name in names if name not in left_out} for part, names in _PARTS.items()}
        publish_json(path, {"format_version": version, **parts, "why": self.why})

    def check_table(self, directory: Path, **found: Any) -> None:
        """Check that a table is the one that was measured.

        Args:
            directory: of the table, for the message.
            **found: its ``quant``, ``dim``, ``sketch``, ``cluster`` and ``refine``.

        Raises:
            UsageError: it differs.
        """
        other = [name for name in _PARTS["table"] if found[name] != getattr(self, name)]
        if other:
            raise UsageError(
                f"{directory} has " + ", ".join(f"{name} {found[name]}" for name in other),
                expected=", ".join(f"{name} {getattr(self, name)}" for name in other) + ", as the operating point says",
                fix="Build with the same --operating-point, or open without one",
            )
