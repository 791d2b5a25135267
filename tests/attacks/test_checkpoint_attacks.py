"""Hostile and damaged checkpoints: each is refused with a message that names the file, what was found and expected."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fllm_export.checkpoint.checkpoint import Checkpoint

from .tampering import TEMPLATE, USERS, edit_json, edit_tensors, load, merged, read_users, refused

pytest.importorskip("torch")


# The directory and its spec


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    refused(load(tmp_path), tmp_path / "filterllm.json", "does not exist", "a checkpoint directory", "Checkpoint.save")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b"nothing"])
def test_spec_that_is_not_json(content: bytes, folder: Path) -> None:
    (folder / "filterllm.json").write_bytes(content)
    refused(load(folder), folder / "filterllm.json", "is not JSON", "a JSON object")


def test_spec_that_is_a_list(folder: Path) -> None:
    (folder / "filterllm.json").write_text("[1]")
    refused(load(folder), folder / "filterllm.json", "a JSON list", "a JSON object")


def test_newer_schema(folder: Path) -> None:
    edit_json(folder / "filterllm.json", schema_version=7)
    refused(load(folder), folder / "filterllm.json", "schema_version is 7", "at most 3", "Upgrade fllm-export")


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
    refused(merged(folder), folder / "base", "needs code of its own (auto_map), which is never run")


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
