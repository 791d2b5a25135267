"""A model repository is one that Triton reads, and its model answers as the runtime does."""

from __future__ import annotations

import importlib.util
import struct
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from fllm_export import Bundle, BundleError, Runtime, UsageError
from fllm_export.cli.main import main
from fllm_export.packing.triton import pack_triton

TEXTS = ["a novel about the sea", "jazz trumpet", "gene expression in yeast"]


def loaded(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def repository(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("triton") / "repository"
    done = CliRunner().invoke(
        main, ["pack", str(tiny_bundle.path), "--triton", str(out), "--name", "readers", "--json"]
    )
    assert done.exit_code == 0, done.output
    return out / "readers"


@pytest.fixture(scope="module")
def config(repository: Path) -> Any:
    """``config.pbtxt`` as Triton's own protobuf description reads it."""
    try:
        described = distribution("tritonclient").locate_file("tritonclient/grpc/model_config_pb2.py")
    except PackageNotFoundError:
        pytest.skip("tritonclient is not installed")
    text_format = pytest.importorskip("google.protobuf.text_format")
    kinds = loaded("model_config_pb2", Path(str(described)))
    return text_format.Parse((repository / "config.pbtxt").read_text(), kinds.ModelConfig())


@pytest.fixture(scope="module")
def backend() -> Any:
    return loaded("triton_python_backend_utils", Path(__file__).with_name("triton_python_backend_utils.py"))


@pytest.fixture(scope="module")
def model(repository: Path, config: Any, backend: Any) -> Any:
    """The model as the backend loads it: its file alone, with the configuration as JSON."""
    json_format = pytest.importorskip("google.protobuf.json_format")
    sys.modules["triton_python_backend_utils"] = backend
    try:
        made = loaded("model", repository / "1" / "model.py").TritonPythonModel()
    finally:
        del sys.modules["triton_python_backend_utils"]
    text = json_format.MessageToJson(config, preserving_proto_field_name=True)
    made.initialize({"model_config": text, "model_repository": str(repository), "model_version": "1"})
    return made


@pytest.fixture(scope="module")
def runtime(tiny_bundle: Bundle) -> Runtime:
    return Runtime.open(tiny_bundle.path)


def texts(backend: Any, items: list[str], **parameters: Any) -> Any:
    values = np.array([[item.encode()] for item in items], object)
    return backend.InferenceRequest([backend.Tensor("TEXT", values)], parameters)


def vectors(backend: Any, z: np.ndarray, **parameters: Any) -> Any:
    return backend.InferenceRequest([backend.Tensor("ITEM_VECTOR", z)], parameters)


def columns(response: Any) -> dict[str, np.ndarray]:
    assert not response.has_error(), response.error().message()
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}


def test_triton_reads_the_configuration(repository: Path, config: Any, tiny_bundle: Bundle) -> None:
    assert (config.name, config.backend, config.max_batch_size) == ("readers", "python", 64)
    assert [(one.name, list(one.dims), one.optional) for one in config.input] == [
        ("TEXT", [1], True),
        ("ITEM_VECTOR", [tiny_bundle.manifest.dim], True),
    ]
    kinds = type(config.input[0]).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    assert [kinds[one.data_type].name for one in config.output][:2] == ["TYPE_INT64", "TYPE_FP32"]
    assert config.HasField("dynamic_batching")
    for sample in config.model_warmup:
        assert {*sample.inputs} <= {one.name for one in config.input}
    Bundle.load(repository / "1" / "bundle").verify()


def test_the_warm_up_requests_are_answered(repository: Path, config: Any, backend: Any, model: Any) -> None:
    requests = []
    for sample in config.model_warmup:
        for name, entry in sample.inputs.items():
            if entry.input_data_file:
                data = (repository / "warmup" / entry.input_data_file).read_bytes()
                (length,) = struct.unpack("<I", data[:4])
                assert len(data) == 4 + length
                values: np.ndarray = np.array([[data[4:]]], object)
            else:
                values = np.random.default_rng(1).random((sample.batch_size, *entry.dims), np.float32)
            requests.append(backend.InferenceRequest([backend.Tensor(name, values)], {"k": 1}))
    assert len(requests) == 2
    for response in model.execute(requests):
        assert columns(response)["COMPLETE"].all()


def test_answers_are_those_of_the_runtime(config: Any, backend: Any, model: Any, runtime: Runtime) -> None:
    z = np.random.default_rng(2).standard_normal((2, runtime.users.dim)).astype(np.float32)
    requests = [
        texts(backend, TEXTS, k=5),
        vectors(backend, z, k=5),
        texts(backend, TEXTS[:1], k=3, mode="sample", seed=7),
        texts(backend, TEXTS[1:2], k=5),
    ]
    wanted = [
        runtime.topk(TEXTS, 5),
        runtime.users.topk(z, 5),
        runtime.topk(TEXTS[:1], 3, mode="sample", seed=7),
        runtime.topk(TEXTS[1:2], 5),
    ]
    types = {one.name: one.data_type for one in config.output}
    for response, answer in zip(model.execute(requests), wanted, strict=True):
        found = columns(response)
        assert found.keys() == types.keys()
        np.testing.assert_array_equal(found["USER_IDS"], answer.user_ids)
        np.testing.assert_array_equal(found["SCORES"], answer.scores)
        np.testing.assert_allclose(found["LOG_PROBS"], answer.log_probs, rtol=1e-5)
        np.testing.assert_allclose(found["LOGSUMEXP"][:, 0], answer.logsumexp, rtol=1e-5)
        assert found["COMPLETE"].all()
        assert found["EXACT"].dtype == np.bool_
        assert (found["GENERATION"] == answer.generation).all()


def test_requests_of_one_kind_share_a_pass(
    backend: Any, model: Any, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, sizes = type(model._runtime.users), []
    search = users.topk

    def counted(self: Any, z: np.ndarray, **options: Any) -> Any:
        sizes.append(len(z))
        return search(self, z, **options)

    monkeypatch.setattr(users, "topk", counted)
    z = np.random.default_rng(2).standard_normal((1, runtime.users.dim)).astype(np.float32)
    model.execute([vectors(backend, z, k=k) for k in (2, 3, 2)] + [vectors(backend, z, k=2, budget_ms=1000)])
    assert sorted(sizes) == [1, 1, 2]


def test_a_bad_request_has_an_error_of_its_own(backend: Any, model: Any, runtime: Runtime) -> None:
    good = np.ones((1, runtime.users.dim), np.float32)
    requests = [
        vectors(backend, good, k=2),
        vectors(backend, good, k=0),
        vectors(backend, good * np.nan, k=2),
        vectors(backend, good[:, 1:], k=2),
        vectors(backend, good, depth=2),
        backend.InferenceRequest([]),
        backend.InferenceRequest([backend.Tensor("TEXT", np.array([[b"\xff"]], object))]),
    ]
    first, *others = model.execute(requests)
    np.testing.assert_array_equal(columns(first)["USER_IDS"], runtime.users.topk(good, 2).user_ids)
    for response in others:
        assert response.has_error()
        assert response.error().code() == backend.TritonError.INVALID_ARG
        assert response.output_tensors() == []


def test_what_is_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="model name"):
        pack_triton(tiny_bundle, tmp_path / "out", name="../users")
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="exists"):
        pack_triton(tiny_bundle, tmp_path / "there")
    with pytest.raises(UsageError, match="inside the bundle"):
        pack_triton(tiny_bundle, tiny_bundle.path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_a_damaged_bundle_leaves_nothing(tiny_bundle: Bundle, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))
    card = copy / "README.md"
    card.write_text(card.read_text().replace("e", "a", 1))
    with pytest.raises(BundleError, match="SHA-256"):
        pack_triton(Bundle.load(copy), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
