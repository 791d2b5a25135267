"""Hostile and damaged checkpoints: each is refused with a message that names the file, what was found and expected."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.errors import BundleError

torch = pytest.importorskip("torch")

USERS = "users-00001-of-00001.safetensors"
TEMPLATE = "About {text}?"


@pytest.fixture
def folder(tiny_checkpoint: Any, tmp_path: Path) -> Path:
    """A sound Llama checkpoint: 50 users of 16 dims, mapper linear_relu [16, 32], LoRA of rank 4."""
    shutil.copytree(tiny_checkpoint("llama").base.parent, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def edit_tensors(file: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def edit_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def refused(action: Callable[[], object], *words: object) -> None:
    with pytest.raises(BundleError) as caught:
        action()
    for word in words:
        assert str(word) in str(caught.value)


def load(folder: Path) -> Callable[[], object]:
    return lambda: Checkpoint.load(folder)


def read_users(folder: Path) -> Callable[[], object]:
    return lambda: list(Checkpoint.load(folder).users.chunks())


def merged(folder: Path) -> Callable[[], object]:
    from fllm_export.checkpoint.merge import merge

    return lambda: merge(Checkpoint.load(folder), ["jazz"])


# The directory and its spec


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    refused(load(tmp_path), tmp_path / "filterllm.json", "does not exist", "a checkpoint directory", "Checkpoint.save")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b"nothing"])
def test_spec_that_is_not_json(content: bytes, folder: Path) -> None:
    (folder / "filterllm.json").write_bytes(content)
    refused(load(folder), folder / "filterllm.json", "is not valid JSON", "a JSON object")


def test_spec_that_is_a_list(folder: Path) -> None:
    (folder / "filterllm.json").write_text("[1]")
    refused(load(folder), folder / "filterllm.json", "a JSON list", "a JSON object")


def test_newer_schema(folder: Path) -> None:
    edit_json(folder / "filterllm.json", schema_version=7)
    refused(load(folder), folder / "filterllm.json", "schema_version is 7", "at most 1", "Upgrade fllm-export")


def test_unknown_key(folder: Path) -> None:
    edit_json(folder / "filterllm.json", temprature=2)
    refused(load(folder), folder / "filterllm.json", "unknown key 'temprature'", "Remove the key")


# The base model


def test_base_model_is_gone(folder: Path) -> None:
    shutil.rmtree(folder / "base")
    refused(load(folder), "'base'", folder / "base", folder / "filterllm.json", "hf download", "tokenizer.json")


def test_base_model_path_that_does_not_exist(folder: Path) -> None:
    edit_json(folder / "filterllm.json", base_model="/no/such/model")
    refused(load(folder), "/no/such/model", folder / "filterllm.json", "Correct the path")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_base_model_lacks_a_file(name: str, folder: Path) -> None:
    (folder / "base" / name).unlink()
    refused(load(folder), "lacks", folder / "base" / name, "save_pretrained")


def test_base_model_with_pickled_weights_only(folder: Path) -> None:
    (folder / "base" / "model.safetensors").unlink()
    (folder / "base" / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    refused(load(folder), folder / "base", "no model.safetensors", "safetensors format", "save_pretrained")


def test_base_model_cut_off(folder: Path) -> None:
    file = folder / "base" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    refused(load(folder), file, "is damaged", "a whole safetensors file", "Copy the file again")


def test_base_model_lacks_a_shard(folder: Path) -> None:
    base = folder / "base"
    (base / "model.safetensors").rename(base / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(load(folder), base / "model-00002-of-00002.safetensors", "does not exist")


def test_base_model_lacks_a_tensor(folder: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    edit_tensors(folder / "base" / "model.safetensors", lambda tensors: tensors.pop(name))
    refused(merged(folder), folder / "base", "lack the tensor 'layers.1.mlp.up_proj.weight'", "all tensors of")


def test_base_model_with_its_own_code_is_not_run(folder: Path) -> None:
    code = folder / "base" / "modeling_own.py"
    code.write_text("raise SystemExit('ran')")
    edit_json(
        folder / "base" / "config.json",
        model_type="own",
        auto_map={"AutoConfig": "modeling_own.Config", "AutoModel": "modeling_own.Model"},
    )
    refused(merged(folder), folder / "base", "cannot be loaded", "AutoModel alone")


def test_tokenizer_that_is_none(folder: Path) -> None:
    (folder / "base" / "tokenizer.json").write_text("{}")
    refused(lambda: Checkpoint.load(folder).tokenizer(), folder / "base" / "tokenizer.json", "is not a tokenizer")


def test_hidden_size_of_another_base_model(folder: Path) -> None:
    edit_json(folder / "base" / "config.json", hidden_size=48)
    refused(load(folder), folder / "head.safetensors", "takes 32 dimensions", "expected 48", folder / "base")


# The mapper


def test_mapper_file_is_gone(folder: Path) -> None:
    (folder / "head.safetensors").unlink()
    refused(load(folder), folder / "head.safetensors", "does not exist", "a safetensors file")


def test_mapper_lacks_its_bias(folder: Path) -> None:
    edit_tensors(folder / "head.safetensors", lambda tensors: tensors.pop("mapper.bias"))
    refused(load(folder), folder / "head.safetensors", "lacks the tensor 'mapper.bias'", "mapper.weight, mapper.bias")


def test_mapper_of_another_kind(folder: Path) -> None:
    edit_json(folder / "filterllm.json", mapper="mlp")
    refused(load(folder), folder / "head.safetensors", "'mapper.0.weight'", "holds mapper.bias, mapper.weight", "mlp")


def test_mapper_left_over_beside_identity(folder: Path) -> None:
    edit_json(folder / "filterllm.json", mapper="identity")
    refused(load(folder), folder / "head.safetensors", "the mapper kind is identity", "Delete it")


def test_unknown_tensor_in_the_mapper_file(folder: Path) -> None:
    edit_tensors(folder / "head.safetensors", lambda tensors: tensors.update(scale=np.ones(1, np.float32)))
    refused(load(folder), folder / "head.safetensors", "unknown tensor 'scale'", "begin with mapper.")


def test_mapper_with_nan(folder: Path) -> None:
    edit_tensors(folder / "head.safetensors", lambda tensors: tensors["mapper.weight"].__setitem__((5, 1), np.nan))
    refused(load(folder), folder / "head.safetensors", "'mapper.weight'", "NaN", "row 5", "finite numbers only")


def test_mapper_of_integers(folder: Path) -> None:
    edit_tensors(folder / "head.safetensors", lambda tensors: tensors.update({"mapper.bias": np.zeros(16, np.int64)}))
    refused(load(folder), folder / "head.safetensors", "'mapper.bias'", "dtype I64", "F32")


def test_mapper_of_another_dim(folder: Path) -> None:
    def narrow(tensors: dict[str, np.ndarray]) -> None:
        tensors["mapper.weight"], tensors["mapper.bias"] = tensors["mapper.weight"][:8], tensors["mapper.bias"][:8]

    edit_tensors(folder / "head.safetensors", narrow)
    refused(load(folder), folder / "head.safetensors", "8 dimensions", "expected 16", "filterllm.json")


# The user rows


def test_no_user_files(folder: Path) -> None:
    (folder / USERS).unlink()
    refused(load(folder), folder, "has no file users-*.safetensors", USERS)


def test_one_of_several_user_files_is_missing(folder: Path) -> None:
    (folder / USERS).rename(folder / "users-00001-of-00003.safetensors")
    shutil.copy(folder / "users-00001-of-00003.safetensors", folder / "users-00003-of-00003.safetensors")
    refused(load(folder), folder, "numbered 1, 3", "the 3 files numbered 1 to 3", "Copy the checkpoint again")


def test_user_files_of_two_sets(folder: Path) -> None:
    shutil.copy(folder / USERS, folder / "users-00002-of-00002.safetensors")
    refused(load(folder), USERS, "users-00002-of-00002.safetensors", "one total", "older set")


def test_the_same_number_twice(folder: Path) -> None:
    shutil.copy(folder / USERS, folder / "users-1-of-1.safetensors")
    refused(load(folder), folder, "numbered 1, 1", "the 1 files numbered 1 to 1")


def test_user_file_without_a_number(folder: Path) -> None:
    shutil.copy(folder / USERS, folder / "users-old.safetensors")
    refused(load(folder), folder / "users-old.safetensors", "unknown name", "users-00001-of-00003.safetensors")


def test_user_file_cut_off(folder: Path) -> None:
    file = folder / USERS
    file.write_bytes(file.read_bytes()[:-4])
    refused(load(folder), file, "is damaged", "a whole safetensors file")


def test_user_file_whose_header_claims_too_much(folder: Path) -> None:
    file = folder / USERS
    file.write_bytes(struct.pack("<Q", 1 << 60) + file.read_bytes()[8:])
    refused(load(folder), file, "is damaged")


def test_user_file_whose_header_points_outside(folder: Path) -> None:
    header = json.dumps({"user_embeddings": {"dtype": "F32", "shape": [50, 16], "data_offsets": [0, 3200]}}).encode()
    (folder / USERS).write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    refused(load(folder), folder / USERS, "is damaged")


def test_user_file_lacks_the_rows(folder: Path) -> None:
    edit_tensors(folder / USERS, lambda tensors: tensors.update(rows=tensors.pop("user_embeddings")))
    refused(load(folder), folder / USERS, "lacks the tensor 'user_embeddings'", "holds rows", "[users, dim]")


def test_user_file_with_an_unknown_tensor(folder: Path) -> None:
    edit_tensors(folder / USERS, lambda tensors: tensors.update(age=np.ones(50, np.float32)))
    refused(load(folder), folder / USERS, "unknown tensor 'age'", "'user_embeddings', 'bias' and 'ids'")


def test_user_rows_with_three_dimensions(folder: Path) -> None:
    edit_tensors(
        folder / USERS,
        lambda tensors: tensors.update(user_embeddings=tensors["user_embeddings"].reshape(5, 10, 16)),
    )
    refused(load(folder), folder / USERS, "'user_embeddings'", "[5, 10, 16]", "[any, any]")


def test_user_rows_of_integers(folder: Path) -> None:
    edit_tensors(folder / USERS, lambda tensors: tensors.update(user_embeddings=np.zeros((50, 16), np.int8)))
    refused(load(folder), folder / USERS, "'user_embeddings'", "dtype I8", "F64 or F32 or F16 or BF16")


def test_user_rows_of_another_dim(folder: Path) -> None:
    edit_tensors(folder / USERS, lambda tensors: tensors.update(user_embeddings=np.zeros((50, 15), np.float32)))
    refused(load(folder), "[50, 15]", "[50, 16]", "filterllm.json")


def test_fewer_users_than_declared(folder: Path) -> None:
    edit_json(folder / "filterllm.json", users=51)
    refused(load(folder), "[50, 16]", "[51, 16]")


def test_user_files_of_different_dims(folder: Path) -> None:
    rows = load_file(folder / USERS)["user_embeddings"]
    (folder / USERS).unlink()
    save_file({"user_embeddings": rows[:25]}, folder / "users-00001-of-00002.safetensors")
    save_file({"user_embeddings": np.zeros((25, 3), np.float32)}, folder / "users-00002-of-00002.safetensors")
    refused(load(folder), folder / "users-00002-of-00002.safetensors", "[25, 3]", "[any, 16]")


def test_bias_in_one_user_file_only(folder: Path) -> None:
    rows = load_file(folder / USERS)["user_embeddings"]
    (folder / USERS).unlink()
    save_file({"user_embeddings": rows[:25]}, folder / "users-00001-of-00002.safetensors")
    second = {"user_embeddings": rows[25:], "bias": np.zeros(25, np.float32)}
    save_file(second, folder / "users-00002-of-00002.safetensors")
    refused(load(folder), folder / "users-00002-of-00002.safetensors", "'bias'", "in all files or in none")


def test_nan_in_a_user_row(folder: Path) -> None:
    edit_tensors(folder / USERS, lambda tensors: tensors["user_embeddings"].__setitem__((33, 2), np.nan))
    refused(read_users(folder), folder / USERS, "'user_embeddings'", "NaN", "row 33", "finite numbers only")


def test_float64_rows_too_large_for_float32(folder: Path) -> None:
    edit_tensors(folder / USERS, lambda tensors: tensors.update(user_embeddings=np.full((50, 16), 1e300)))
    refused(read_users(folder), folder / USERS, "NaN or infinite number in row 0")


def test_nan_in_the_bias(folder: Path) -> None:
    bias = np.zeros(50, np.float32)
    bias[9] = -np.inf
    edit_tensors(folder / USERS, lambda tensors: tensors.update(bias=bias))
    refused(load(folder), folder / USERS, "'bias'", "row 9")


def test_bias_of_the_wrong_length(folder: Path) -> None:
    edit_tensors(folder / USERS, lambda tensors: tensors.update(bias=np.zeros(49, np.float32)))
    refused(load(folder), folder / USERS, "'bias'", "[49]", "[50]")


def test_duplicate_ids(folder: Path) -> None:
    ids = np.arange(50)
    ids[40] = 7
    edit_tensors(folder / USERS, lambda tensors: tensors.update(ids=ids))
    refused(load(folder), folder, "'ids'", "7 in row 7 and again in row 40", "each user id once")


def test_negative_id(folder: Path) -> None:
    edit_tensors(folder / USERS, lambda tensors: tensors.update(ids=np.arange(50) - 1))
    refused(load(folder), folder, "'ids'", "-1 in row 0", "ids of 0 or more")


def test_ids_of_the_wrong_dtype(folder: Path) -> None:
    edit_tensors(folder / USERS, lambda tensors: tensors.update(ids=np.arange(50, dtype=np.float32)))
    refused(load(folder), folder / USERS, "'ids'", "dtype F32", "I64")


# The adapter


def test_adapter_without_config(folder: Path) -> None:
    (folder / "adapter" / "adapter_config.json").unlink()
    refused(load(folder), folder / "adapter" / "adapter_config.json", "lacks", "save_pretrained")


def test_adapter_that_is_a_pickle(folder: Path) -> None:
    (folder / "adapter" / "adapter_model.safetensors").rename(folder / "adapter" / "adapter_model.bin")
    refused(load(folder), folder / "adapter", "adapter_model.bin is a pickle and is refused", "safetensors")


def test_adapter_cut_off(folder: Path) -> None:
    file = folder / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    refused(load(folder), file, "is damaged")


def test_adapter_config_that_is_not_json(folder: Path) -> None:
    (folder / "adapter" / "adapter_config.json").write_text("{'r': 4}")
    refused(load(folder), folder / "adapter" / "adapter_config.json", "is not valid JSON")


def test_adapter_that_cannot_be_folded(folder: Path) -> None:
    edit_json(folder / "adapter" / "adapter_config.json", peft_type="PROMPT_TUNING")
    refused(load(folder), folder / "adapter" / "adapter_config.json", "'PROMPT_TUNING'", "LORA")


def test_empty_adapter(folder: Path) -> None:
    save_file({}, folder / "adapter" / "adapter_model.safetensors")
    refused(load(folder), folder / "adapter" / "adapter_model.safetensors", "holds no tensors")


def test_adapter_with_a_foreign_tensor_name(folder: Path) -> None:
    edit_tensors(
        folder / "adapter" / "adapter_model.safetensors", lambda tensors: tensors.update(x=np.ones(1, np.float32))
    )
    refused(load(folder), folder / "adapter" / "adapter_model.safetensors", "'x'", "base_model.model.")


def test_adapter_lacks_a_tensor(folder: Path) -> None:
    name = "base_model.model.layers.1.self_attn.v_proj.lora_B.weight"
    edit_tensors(folder / "adapter" / "adapter_model.safetensors", lambda tensors: tensors.pop(name))
    refused(merged(folder), folder / "adapter" / "adapter_model.safetensors", f"lacks the tensor '{name}'", "8 tensors")


def test_adapter_tensor_of_the_wrong_shape(folder: Path) -> None:
    name = "base_model.model.layers.0.self_attn.q_proj.lora_A.weight"
    edit_tensors(
        folder / "adapter" / "adapter_model.safetensors",
        lambda tensors: tensors.update({name: np.zeros((4, 31), np.float32)}),
    )
    refused(merged(folder), folder / "adapter" / "adapter_model.safetensors", name, "[4, 31]", "[4, 32]")


def test_nan_in_the_adapter(folder: Path) -> None:
    name = "base_model.model.layers.0.self_attn.q_proj.lora_B.weight"
    edit_tensors(
        folder / "adapter" / "adapter_model.safetensors", lambda tensors: tensors[name].__setitem__((3, 0), np.nan)
    )
    refused(merged(folder), folder / "adapter" / "adapter_model.safetensors", name, "NaN", "row 3")


def test_adapter_whose_weights_overflow_when_folded(folder: Path) -> None:
    def huge(tensors: dict[str, np.ndarray]) -> None:
        for value in tensors.values():
            value[:] = 1e30

    edit_tensors(folder / "adapter" / "adapter_model.safetensors", huge)
    refused(merged(folder), folder / "adapter", "cannot be folded", "NaN")


# The extended vocabulary


def test_ids_file_of_the_extended_vocabulary(tiny_llama_dir: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.from_extended_vocabulary(
        tiny_llama_dir, first_user_row=390, template=TEMPLATE, ids=range(10)
    )
    checkpoint.save(tmp_path)
    file = tmp_path / "ids.safetensors"
    save_file({"ids": np.zeros(10, np.int64)}, file)
    refused(load(tmp_path), "'ids'", "0 in row 0 and again in row 1")
    save_file({"names": np.arange(10)}, file)
    refused(load(tmp_path), file, "holds the tensors names", "'ids' only")
    save_file({"ids": np.arange(9)}, file)
    refused(load(tmp_path), "'ids'", "[9]", "[10]")


def test_nan_in_a_row_of_the_head(tiny_llama_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_llama_dir, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    edit_tensors(file, lambda tensors: tensors["lm_head.weight"].__setitem__((395, 0), np.nan))
    checkpoint = Checkpoint.from_extended_vocabulary(tmp_path / "model", first_user_row=390, template=TEMPLATE)
    refused(lambda: list(checkpoint.users.chunks()), file, "'lm_head.weight'", "row 395")


# The official files


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def official(base: Path, file: Path, **options: Any) -> Callable[[], object]:
    return lambda: Checkpoint.from_filterllm(base, None, file, template=TEMPLATE, **options)


def good_weights() -> dict[str, Any]:
    return {
        "mapper": {"weight": torch.zeros(32, 32), "bias": torch.zeros(32)},
        "user_embeddings": {"weight": torch.ones(5, 32)},
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_with_code(zipped: bool, tiny_llama_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "custom_weights.pt"
    marker = tmp_path / "ran"
    torch.save({**good_weights(), "mapper": Payload(marker)}, file, _use_new_zipfile_serialization=zipped)
    refused(official(tiny_llama_dir, file), file, "was refused", "tensors only", "none of its code was run")
    assert not marker.exists()
    torch.load(file, weights_only=False)
    assert marker.exists(), "the payload is harmless, so that the test shows nothing"


def test_plain_pickle_with_code(tiny_llama_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "custom_weights.pt"
    marker = tmp_path / "ran"
    file.write_bytes(pickle.dumps(Payload(marker)))
    refused(official(tiny_llama_dir, file), file, "was refused")
    assert not marker.exists()
    pickle.loads(file.read_bytes())
    assert marker.exists(), "the payload is harmless, so that the test shows nothing"


def test_official_file_is_gone(tiny_llama_dir: Path, tmp_path: Path) -> None:
    refused(official(tiny_llama_dir, tmp_path / "custom_weights.pt"), tmp_path / "custom_weights.pt", "does not exist")


@pytest.mark.parametrize("keep", [0, 10, 400, -1])
def test_official_file_cut_off(keep: int, tiny_llama_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "custom_weights.pt"
    torch.save(good_weights(), file)
    file.write_bytes(file.read_bytes()[:keep])
    refused(official(tiny_llama_dir, file), file)


def test_official_file_with_one_tensor(tiny_llama_dir: Path, tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "w.pt")
    refused(official(tiny_llama_dir, tmp_path / "w.pt"), tmp_path / "w.pt", "holds a Tensor", "user_embeddings.weight")


def test_official_file_without_users(tiny_llama_dir: Path, tmp_path: Path) -> None:
    torch.save({"mapper": good_weights()["mapper"]}, tmp_path / "w.pt")
    refused(
        official(tiny_llama_dir, tmp_path / "w.pt"),
        tmp_path / "w.pt",
        "lacks the tensor 'user_embeddings.weight'",
        "holds mapper.bias, mapper.weight",
    )


def test_official_file_with_foreign_content(tiny_llama_dir: Path, tmp_path: Path) -> None:
    torch.save({**good_weights(), "epoch": 3}, tmp_path / "w.pt")
    refused(official(tiny_llama_dir, tmp_path / "w.pt"), tmp_path / "w.pt", "'epoch' is a int", "a tensor")
    torch.save({**good_weights(), "gate": {"weight": torch.ones(2)}}, tmp_path / "w.pt")
    refused(official(tiny_llama_dir, tmp_path / "w.pt"), tmp_path / "w.pt", "unknown tensor 'gate.weight'")


def test_official_user_table_of_the_wrong_kind(tiny_llama_dir: Path, tmp_path: Path) -> None:
    for table, found in [(torch.ones(5), "[5]"), (torch.ones(5, 32, dtype=torch.int64), "torch.int64")]:
        torch.save({**good_weights(), "user_embeddings": {"weight": table}}, tmp_path / "w.pt")
        refused(
            official(tiny_llama_dir, tmp_path / "w.pt"), tmp_path / "w.pt", "'user_embeddings.weight'", found, "[users"
        )


def test_official_user_table_of_another_dim(tiny_llama_dir: Path, tmp_path: Path) -> None:
    torch.save({**good_weights(), "user_embeddings": {"weight": torch.ones(5, 31)}}, tmp_path / "w.pt")
    refused(official(tiny_llama_dir, tmp_path / "w.pt"), tmp_path / "w.pt", "32 dimensions", "31")


def test_nan_in_the_official_user_table(tiny_llama_dir: Path, tmp_path: Path) -> None:
    weights = good_weights()
    weights["user_embeddings"]["weight"][4, 0] = float("nan")
    torch.save(weights, tmp_path / "w.pt")
    checkpoint = Checkpoint.from_filterllm(tiny_llama_dir, None, tmp_path / "w.pt", template=TEMPLATE)
    refused(lambda: list(checkpoint.users.chunks()), tmp_path / "w.pt", "'user_embeddings.weight'", "row 4")
