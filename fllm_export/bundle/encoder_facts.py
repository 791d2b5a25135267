"""What model card and report page say about the encoder for CPUs, and what it costs."""

from __future__ import annotations

from typing import Any

from fllm_export.bundle.bundle import CPU_ENCODER_REPORT, PARITY_REPORT, Bundle


def encoder_facts(bundle: Bundle, provenance: dict[str, Any]) -> dict[str, str]:
    """Return a line on the precision of the encoder on CPUs."""
    precision = provenance["encoder_precision"]
    if precision == "fp32":
        return {"encoder on CPUs": "fp32"}
    found = bundle.report(CPU_ENCODER_REPORT)
    forms = {"MatMulInteger": found["matmul_integer"], "MatMulNBits": found["matmul_nbits"]}
    products = " and ".join(f"{count} {form}" for form, count in forms.items() if count)
    narrow = ", 7 bits for CPUs without VNNI" if found["reduced_range"] and found["matmul_integer"] else ""
    sizes = f"{found['quantised_bytes']:,} bytes for {found['weight_bytes']:,} in fp32"
    return {"encoder on CPUs": f"{precision}{narrow}: {products}, {sizes}"}


def encoder_cost(bundle: Bundle) -> str:
    """Return a sentence on the recall that the fp32 encoder has with the same table; empty where that is used."""
    compared = bundle.report(PARITY_REPORT).get("encoder")
    if compared is None:
        return ""
    parity = bundle.parity()
    plain = float(compared["recall_of_fp32_encoder"][str(parity.k)])
    return (
        f"The encoder of this recall is the one in {compared['precision']}. With the fp32 encoder and the same table, "
        f"recall@{parity.k} is {plain:.4f}."
    )
