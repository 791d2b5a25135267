"""What a bundle was made from, by what and when: the provenance that manifest, card and report share."""

from __future__ import annotations

import math
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fllm_export.bundle.bundle import ENCODER_REPORT, Bundle
from fllm_export.bundle.job import Job
from fllm_export.checkpoint.checkpoint import BASE_FOLDER, Checkpoint
from fllm_export.extras import package_version
from fllm_export.manifest import CALIBRATION_REPORT

_PACKAGES = (
    "fllm-export",
    "numpy",
    "onnx",
    "onnxruntime",
    "optimum-onnx",
    "peft",
    "tokenizers",
    "torch",
    "transformers",
)


def provenance(job: Job, staged: Bundle) -> dict[str, Any]:
    """Return the provenance of a staged bundle whose encoder report is in place, JSON-ready."""
    return {
        "build_key": job.build_key,
        "built_at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "base_model": _base_model(job.checkpoint),
        "min_recall": job.options.min_recall,
        "checkpoint_sha256": job.fingerprint,
        "adapter_sha256": staged.report(ENCODER_REPORT)["merge"]["adapter_sha256"],
        "calibration_sha256": job.texts.sha256,
        "calibration": _calibration(staged),
        "exporter": job.options.exporter,
        "encoder_precision": job.options.encoder_precision,
        "versions": _versions(),
    }


def _calibration(staged: Bundle) -> dict[str, Any] | None:
    """Return what was measured on the texts and chosen by it; the whole of it is in the report that is named."""
    found = staged.calibration()
    if found is None:
        return None
    kept = ("texts", "moments_sha256", "dim", "rounding", "score_energy_kept", "rotation_seed")
    return {"report": CALIBRATION_REPORT, **{name: found[name] for name in kept if name in found}}


def _base_model(checkpoint: Checkpoint) -> str:
    """Return a line on the base model: its name and what its files say, which tell models apart where names do not."""
    model = checkpoint.base_model
    architectures = model.config.get("architectures")
    kind = architectures[0] if isinstance(architectures, list) and architectures else model.config.get("model_type")
    parameters = sum(math.prod(tensor.shape) for tensor in model.tensors().values())
    name = Path(checkpoint.spec.base_model).name
    facts = f"{kind}, {parameters:,} parameters"
    return facts if name == BASE_FOLDER else f"{name} ({facts})"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    installed = {package: package_version(package) for package in _PACKAGES}
    return found | {package: version for package, version in installed.items() if version is not None}
