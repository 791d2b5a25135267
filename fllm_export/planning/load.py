"""What other work takes of this machine, by which measured times are judged."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from fllm_export.counted import counted


@dataclass(frozen=True)
class Load:
    """The load of this machine before something was measured.

    Attributes:
        load: load average of the minute before.
        processors: that this process may use.
    """

    load: float
    processors: int

    @classmethod
    def now(cls) -> Load:
        """Return the load of the minute before this call."""
        return cls(os.getloadavg()[0], len(os.sched_getaffinity(0)))

    @property
    def busy(self) -> bool:
        """Whether other work took a processor while something was measured, so that it took longer."""
        return self.load > self.processors / 2

    def told(self) -> str:
        """Return the load in words."""
        return f"load {self.load:.1f} on {counted(self.processors, 'processor')}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**asdict(self), "busy": self.busy}
