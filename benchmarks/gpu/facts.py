"""What results are worth nothing without: the device, its driver, the date."""

from __future__ import annotations

import datetime
import subprocess

EMULATED = "an emulated GPU"


def has_gpu() -> bool:
    """Return whether the driver lists a GPU."""
    return _ask("name") is not None


def capability() -> str:
    """Return the first GPU's compute capability, such as ``9.0``.

    Raises:
        RuntimeError: there is no GPU.
    """
    found = _ask("compute_cap")
    if found is None:
        raise RuntimeError("nvidia-smi lists no GPU")
    return found


def facts(*, emulated: bool = False) -> dict[str, str]:
    """Return device, driver and date."""
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    if emulated:
        return {"device": EMULATED, "driver": "none", "date": date}
    return {"device": _ask("name") or "unknown", "driver": _ask("driver_version") or "unknown", "date": date}


def _ask(field: str) -> str | None:
    try:
        command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else None
