"""The document at /openapi.json, held against the server by requests that schemathesis makes from it."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest

from .serving import call

schemathesis = pytest.importorskip("schemathesis")


def test_every_route_is_described(serve: Any) -> None:
    async def work(app: Any, _: Any) -> None:
        document = (await call(app, "GET", "/openapi.json")).json
        assert document["paths"].keys() == {"/v1/topk", "/v1/reload", "/healthz", "/readyz", "/metrics"}
        assert document["paths"]["/v1/topk"]["post"]["responses"].keys() >= {"200", "400", "413", "429", "503"}
        json.dumps(document, allow_nan=False)

    serve(work)


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_answers_are_as_described(program: Any, mode: str) -> None:
    api = schemathesis.openapi.from_url(f"http://127.0.0.1:{program.port}/openapi.json")
    made = {"positive": schemathesis.GenerationMode.POSITIVE, "negative": schemathesis.GenerationMode.NEGATIVE}[mode]
    # A request that suits the schema may still have vectors of another dimension than the table.
    other = schemathesis.checks.CHECKS.get_one("positive_data_acceptance")
    asked = 0
    for found in api.get_all_operations():
        operation = found.ok()
        if mode == "negative" and operation.method.lower() == "get":
            continue

        @hypothesis.given(case=operation.as_strategy(generation_mode=made))
        @hypothesis.settings(max_examples=30, suppress_health_check=list(hypothesis.HealthCheck))
        def answered(case: Any) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(excluded_checks=[other])

        answered()
    assert asked > 30
