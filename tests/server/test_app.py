from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fllm_export import Runtime, UserTable
from fllm_export.bundle.bundle import Bundle
from fllm_export.errors import UsageError
from fllm_export.server.access import bearer, read_token
from fllm_export.server.service import Access

from .serving import body, call, vectors


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Users and scores are the same bits; log-probabilities differ in their last digits where passes are shared."""
    assert found["generation"] == wanted["generation"]
    for ours, theirs in zip(found["items"], wanted["items"], strict=True):
        assert ours.keys() == theirs.keys()
        for field in ("user_id", "score"):
            assert [user[field] for user in ours["users"]] == [user[field] for user in theirs["users"]]
        np.testing.assert_allclose(
            [user["log_prob"] or 0 for user in ours["users"]],
            [user["log_prob"] or 0 for user in theirs["users"]],
            rtol=1e-5,
            atol=1e-5,
        )
        for field in ("coverage", "complete", "exact", "log_probs_exact", "log_probs_certified"):
            assert ours[field] == theirs[field]
        np.testing.assert_allclose(ours["log_prob_error"] or 0, theirs["log_prob_error"] or 0, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"k": 5},
        {"k": 3000},
        {"k": 4, "mode": "sample", "seed": [1, 2, 2**64 - 1]},
        {"k": 4, "log_probs": "none"},
        {"k": 4, "log_probs": "certified"},
        {"k": 4, "exact": False},
        {"k": 4, "budget_ms": 1e6},
    ],
)
def test_answers_are_those_of_the_table(serve: Any, table: UserTable, options: dict[str, Any]) -> None:
    async def work(app: Any, _: Any) -> None:
        found = await call(app, "POST", "/v1/topk", body(vectors(3), **options))
        assert found.status == 200, found.body
        assert_same(found.json, table.topk(vectors(3), **options).to_dict())
        assert found.json["timings_ms"].keys() == {"queue", "scan", "merge"}

    serve(work)


def test_filters(serve: Any, table: UserTable) -> None:
    best = table.topk(vectors(1), 3).user_ids[0].tolist()

    async def work(app: Any, _: Any) -> None:
        for name, listed in (("deny", best[:1]), ("allow", best[1:]), ("allow", [])):
            found = await call(app, "POST", "/v1/topk", body(vectors(1), k=2, **{name: listed}))
            wanted = table.topk(vectors(1), 2, filter=table.filter(**{name: np.array(listed, np.int64)}))
            assert_same(found.json, wanted.to_dict())

    serve(work)


def test_texts_and_token_ids_of_a_bundle(serve: Any, tiny_bundle: Bundle, item_texts: list[str]) -> None:
    runtime = Runtime.open(tiny_bundle.path, threads=1)
    texts = item_texts[:3]
    wanted = runtime.topk(texts, 5).to_dict()

    async def work(app: Any, _: Any) -> None:
        found = await call(app, "POST", "/v1/topk", json.dumps({"texts": texts, "k": 5}).encode())
        assert_same(found.json, wanted)
        assert found.json["timings_ms"].keys() == {"tokenise", "encode", "queue", "scan", "merge"}
        tokens = {"token_ids": runtime.tokenize(texts), "k": 5}
        assert_same((await call(app, "POST", "/v1/topk", json.dumps(tokens).encode())).json, wanted)
        # Requests at once, whose texts are encoded each by itself: the bits of a request alone.
        one = [json.dumps({"text": text, "k": 5}).encode() for text in item_texts]
        answers = await asyncio.gather(*(call(app, "POST", "/v1/topk", text) for text in one))
        for text, answer in zip(item_texts, answers, strict=True):
            assert_same(answer.json, runtime.topk([text], 5).to_dict())
        for wrong, message in (
            ({"text": " "}, "empty"),
            ({"token_ids": [[]]}, "0 tokens"),
            ({"token_ids": [[1] * 65]}, "65 tokens"),
            ({"token_ids": [3]}, "is a int"),
            ({"token_ids": [[1.5]]}, "token ids: integers"),
            ({"token_ids": [[10**9]]}, "token ids: integers"),
        ):
            refused = await call(app, "POST", "/v1/topk", json.dumps(wrong).encode())
            assert refused.status == 400, refused.body
            assert message in refused.json["error"]["message"]

    serve(work, tiny_bundle.path)


def test_failures_say_what_was_found_and_expected(serve: Any) -> None:
    async def work(app: Any, service: Any) -> None:
        found = await call(app, "POST", "/v1/topk", body(vectors(1), k=3001))
        assert found.status == 400
        assert found.json["error"] == {
            "kind": "UsageError",
            "message": "k is 3001; expected an integer from 1 to 3000, the users of this table.",
            "found": "k is 3001",
            "expected": "an integer from 1 to 3000, the users of this table",
            "fix": None,
        }
        for request, status, kind in (
            (("POST", "/v1/topk", body(vectors(1, dim=3))), 400, "UsageError"),
            (("POST", "/v1/topk", b'{"text": "a"}'), 400, "UsageError"),
            (("POST", "/v1/topk", body(vectors(1), mode="best")), 400, "UsageError"),
            (("POST", "/v1/topk", body(vectors(1), budget_ms=0)), 400, "UsageError"),
            (("POST", "/v1/topk", body(vectors(1), seed=2**64)), 400, "UsageError"),
            (("GET", "/v1/topk", b""), 405, "MethodNotAllowed"),
            (("GET", "/nowhere", b""), 404, "NotFound"),
            (("POST", "/v1/reload", b"{"), 400, "UsageError"),
            (("POST", "/v1/reload", b'{"path": 3}'), 400, "UsageError"),
            (("POST", "/v1/reload", b'{"path": "/tmp"}'), 403, "Forbidden"),
        ):
            found = await call(app, *request)
            assert (found.status, found.json["error"]["kind"]) == (status, kind), found.body
        assert b'fllm_requests_total{status="400"} 6.0' in service.metrics.text()

    serve(work)


def test_bodies_have_limits(serve: Any) -> None:
    async def work(app: Any, _: Any) -> None:
        large = body(vectors(30))
        assert (await call(app, "POST", "/v1/topk", large, {"content-length": str(len(large))})).status == 413
        # The length of a chunked body is not known before.
        found = await call(app, "POST", "/v1/topk", [large[:2000]] * 5)
        assert (found.status, found.json["error"]["kind"]) == (413, "TooLarge")
        found = await call(app, "POST", "/v1/topk", body(vectors(1)), {"content-encoding": "gzip"})
        assert (found.status, found.json["error"]["kind"]) == (415, "Unsupported")

    serve(work, max_body_bytes=5000)


def test_a_full_server_says_when_to_come_back(serve: Any, table: UserTable) -> None:
    async def work(app: Any, service: Any) -> None:
        asked = [call(app, "POST", "/v1/topk", body(vectors(2, i), k=3)) for i in range(40)]
        found = await asyncio.gather(*asked)
        assert {reply.status for reply in found} == {200, 429}
        for i, reply in enumerate(found):
            if reply.status == 429:
                assert int(reply.headers["retry-after"]) >= 1
                assert reply.json["error"]["kind"] == "Overloaded"
            else:
                assert_same(reply.json, table.topk(vectors(2, i), 3).to_dict())
        assert (await call(app, "POST", "/v1/topk", body(vectors(20), k=3))).status == 200
        assert b"fllm_items_in_server 0.0" in service.metrics.text()

    serve(work, max_waiting_items=6, max_wait_ms=50, max_batch=100)


def test_who_waits_too_long_is_told(serve: Any) -> None:
    async def work(app: Any, _: Any) -> None:
        found = await call(app, "POST", "/v1/topk", body(vectors(1), k=3))
        assert (found.status, found.headers["retry-after"]) == (503, "1")

    serve(work, max_wait_ms=200, answer_timeout_s=0.05)


def test_health_before_and_after_opening(serve: Any, users: Path) -> None:
    from fllm_export.server.app import create_app
    from fllm_export.server.options import ServerOptions, SourceOptions
    from fllm_export.server.service import Service

    async def work() -> None:
        service = Service(SourceOptions(users, threads=1), ServerOptions())
        app = create_app(service)
        assert (await call(app, "GET", "/healthz")).json == {"alive": True}
        assert (await call(app, "GET", "/readyz")).status == 503
        early = await call(app, "POST", "/v1/topk", body(vectors(1)))
        assert (early.status, early.headers["retry-after"]) == (503, "1")
        assert (await call(app, "POST", "/v1/reload")).status == 503
        await service.load()
        assert (await call(app, "GET", "/readyz")).json == {"ready": True, "generation": 1}
        service.closing = True
        assert (await call(app, "GET", "/readyz")).status == 503
        await service.close()

    asyncio.run(work())


def test_nothing_is_served_that_does_not_answer(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fllm_export.errors import BundleError
    from fllm_export.server.served import Served

    def broken(self: Served) -> None:
        raise BundleError("no answer")

    async def work(app: Any, service: Any) -> None:
        monkeypatch.setattr(Served, "check", broken)
        found = await call(app, "POST", "/v1/reload")
        assert (found.status, found.json["error"]["kind"]) == (500, "BundleError")
        assert (await call(app, "POST", "/v1/topk", body(vectors(1)))).status == 200
        assert b"fllm_failed_reloads_total 1.0" in service.metrics.text()

    serve(work)


def test_metrics(serve: Any) -> None:
    async def work(app: Any, _: Any) -> None:
        for seed in range(3):
            await call(app, "POST", "/v1/topk", body(vectors(2, seed), k=3))
        found = await call(app, "GET", "/metrics")
        assert found.headers["content-type"].startswith("text/plain")
        values = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(found.body.decode())
            for sample in family.samples
        }
        assert values["fllm_requests_total", "200"] == 3
        assert values["fllm_items_total",] == 6
        assert values["fllm_coverage_sum",] == 6
        assert values["fllm_batch_items_sum",] == 6
        assert sum(value for name, value in values.items() if name[0] == "fllm_passes_total") == 3
        assert values["fllm_users",] == 3000
        assert values["fllm_ready",] == values["fllm_generation",] == 1
        assert values["fllm_resident_bytes",] > 1e7
        assert values["fllm_queue_items",] == values["fllm_oldest_seconds",] == 0
        for stage in ("queue", "scan", "total"):
            assert values["fllm_stage_seconds_count", stage] == 3

    serve(work)


def test_a_token_opens_everything_but_health(serve: Any, tmp_path: Path) -> None:
    token = "0123456789abcdef"
    UserTable.create(tmp_path / "other", vectors(50, 5), quant="int8", generation=7)

    async def work(app: Any, _: Any) -> None:
        right = {"authorization": f"Bearer {token}"}
        for headers in ({}, {"authorization": token}, {"authorization": "Bearer x"}, {"authorization": "Bearer é"}):
            for route in (("POST", "/v1/topk"), ("POST", "/v1/reload"), ("GET", "/metrics")):
                found = await call(app, *route, b"{", {name: text for name, text in headers.items()})
                assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer")
        assert (await call(app, "GET", "/healthz")).status == (await call(app, "GET", "/readyz")).status == 200
        assert (await call(app, "POST", "/v1/topk", body(vectors(1)), right)).status == 200
        named = json.dumps({"path": str(tmp_path / "other")}).encode()
        assert (await call(app, "POST", "/v1/reload", named, right)).json == {"generation": 7}
        assert (await call(app, "POST", "/v1/reload", b"", right)).json == {"generation": 7}
        assert (await call(app, "POST", "/v1/reload", b'{"path": "/none"}', right)).status == 500
        assert len((await call(app, "POST", "/v1/topk", body(vectors(1), k=50), right)).json["items"][0]["users"]) == 50

    serve(work, arguments={"access": Access(bearer(token), other_paths=True)})


def test_tokens_are_read_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLLM_SERVER_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("FLLM_SERVER_TOKEN", "b" * 20)
    assert read_token(None) == "b" * 20
    file = tmp_path / "token"
    file.write_text("a" * 16 + "\n")
    assert read_token(file) == "a" * 16
    for wrong in ("short", "a" * 20 + " b", "é" * 20):
        file.write_text(wrong)
        with pytest.raises(UsageError):
            read_token(file)
    with pytest.raises(UsageError):
        read_token(tmp_path / "none")


def test_spans_of_a_request(serve: Any) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    from fllm_export.server.tracing import Tracing

    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    trace = "0af7651916cd43dd8448eb211c80319c"

    async def work(app: Any, _: Any) -> None:
        headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        assert (await call(app, "POST", "/v1/topk", body(vectors(2), k=3), headers)).status == 200

    serve(work, arguments={"tracing": Tracing(provider)})
    spans = {span.name: span for span in memory.get_finished_spans()}
    assert spans.keys() == {"POST /v1/topk", "parse", "encode", "queue", "scan", "write"}
    whole = spans.pop("POST /v1/topk")
    assert whole.attributes["fllm.items"] == 2
    assert format(whole.context.trace_id, "032x") == trace
    for span in spans.values():
        assert span.parent.span_id == whole.context.span_id
        assert whole.start_time <= span.start_time <= span.end_time <= whole.end_time
