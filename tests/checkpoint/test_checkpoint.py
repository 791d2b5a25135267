from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export.checkpoint.base import BaseModel
from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.checkpoint.features import Dense, Features, Normalize, Step
from fllm_export.checkpoint.mapper import Mapper
from fllm_export.checkpoint.users import UserRows
from fllm_export.errors import BundleError, UsageError


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("mapper", ["identity", "linear", "linear_relu", "mlp", "kernel"])
@pytest.mark.parametrize("features", [(), ("normalize",), ("gelu", "normalize")], ids=["plain", "unit", "dense"])
def test_save_and_load(family: Any, mapper: Any, features: Any, tiny_checkpoint: Any, tmp_path: Path) -> None:
    first = tiny_checkpoint(family, mapper=mapper, features=features)
    first.save(tmp_path / "copy")
    second = Checkpoint.load(tmp_path / "copy")
    assert second.spec == first.spec
    assert second.fingerprint() == first.fingerprint()
    assert tree(tmp_path / "copy") == tree(first.base.parent)
    np.testing.assert_array_equal(next(first.users.chunks()), next(second.users.chunks()))
    assert (tmp_path / "copy" / "head.safetensors").exists() is (mapper != "identity" or "gelu" in features)
    written = json.loads((tmp_path / "copy" / "filterllm.json").read_text())
    assert written["schema_version"] == (2 if features or mapper == "kernel" else 1)
    assert ("features" in written) is bool(features)


def test_saved_checkpoint_needs_nothing_else(tiny_checkpoint: Any, tmp_path: Path) -> None:
    first = tiny_checkpoint("llama")
    first.save(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    moved = Checkpoint.load(tmp_path / "b")
    assert json.loads((tmp_path / "b" / "filterllm.json").read_text())["base_model"] == "base"
    assert moved.base == tmp_path / "b" / "base"
    assert moved.adapter == tmp_path / "b" / "adapter"


def with_features(checkpoint: Checkpoint, *steps: Step) -> Checkpoint:
    features = Features(steps)
    return replace(checkpoint, features=features, spec=replace(checkpoint.spec, features=features.specs))


def test_features_must_be_those_of_the_spec_and_fit(tiny_checkpoint: Any) -> None:
    checkpoint = tiny_checkpoint("llama", lora=False)
    with pytest.raises(BundleError, match="the features are normalize; expected none, as filterllm"):
        replace(checkpoint, features=Features((Normalize(),)))
    with pytest.raises(BundleError, match=r"features.0.weight has the shape \[32, 31\]; expected \[any, 32\]"):
        with_features(checkpoint, Dense(np.zeros((32, 31)), np.zeros(32)))
    with pytest.raises(BundleError, match="takes 32 dimensions; expected 30, the dimensions that the features make"):
        with_features(checkpoint, Dense(np.zeros((30, 32)), np.zeros(30)))


def test_fingerprint_changes_with_every_part(tiny_checkpoint: Any, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("llama")
    rows = next(checkpoint.users.chunks())
    n = len(rows)
    other_rows = rows.copy()
    other_rows[3, 4] += 1
    weights = dict(checkpoint.mapper.weights)
    other_base = tmp_path / "base"
    shutil.copytree(checkpoint.base, other_base)
    config = other_base / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    eye, zero = np.eye(32), np.zeros(32)
    different: list[tuple[Step, ...]] = [
        (Normalize(),),
        (Dense(eye, zero, "tanh"),),
        (Dense(eye, zero, "gelu"),),
        (Dense(2 * eye, zero, "tanh"),),
        (Dense(eye, zero + 1, "tanh"),),
        (Dense(eye, zero, "tanh"), Normalize()),
    ]
    prints = [
        checkpoint.fingerprint(),
        replace(checkpoint, spec=replace(checkpoint.spec, max_length=7)).fingerprint(),
        replace(checkpoint, adapter=None).fingerprint(),
        replace(checkpoint, base=other_base).fingerprint(),
        replace(checkpoint, users=UserRows.from_array(other_rows)).fingerprint(),
        replace(checkpoint, users=UserRows.from_array(rows, ids=np.arange(n)[::-1].copy())).fingerprint(),
        replace(checkpoint, users=UserRows.from_array(rows, bias=np.ones(n))).fingerprint(),
        replace(checkpoint, mapper=Mapper("linear_relu", {**weights, "bias": weights["bias"] + 1})).fingerprint(),
        *(with_features(checkpoint, *steps).fingerprint() for steps in different),
    ]
    assert len(set(prints)) == len(prints)
    assert replace(checkpoint, users=UserRows.from_array(rows)).fingerprint() == prints[0]


def test_prompt_and_tokenizer(tiny_checkpoint: Any) -> None:
    checkpoint = tiny_checkpoint("llama", max_length=40)
    prompt, tokenizer = checkpoint.prompt(), checkpoint.tokenizer()
    assert prompt.pad_id == tokenizer.token_to_id("<pad>")
    assert tokenizer.padding is None
    assert tokenizer.truncation is None
    rows = prompt.tokenize(tokenizer, ["sea", "jazz " * 100])
    assert len(rows[0]) < len(rows[1]) == 40
    question = tokenizer.encode(" Who would like it?", add_special_tokens=False).ids
    assert rows[1][-len(question) :] == question
    assert rows[1][0] == tokenizer.token_to_id("<s>")


def test_tokenizer_switches_off_what_the_file_asks_for(minilm_dir: Path, tiny_checkpoint: Any) -> None:
    from tokenizers import Tokenizer

    assert Tokenizer.from_file(str(minilm_dir / "tokenizer.json")).padding is not None
    checkpoint = tiny_checkpoint("bert", lora=False, mapper="linear")
    weights = {"weight": np.zeros((16, 384), np.float32), "bias": np.zeros(16, np.float32)}
    checkpoint = replace(checkpoint, base=minilm_dir, mapper=Mapper("linear", weights))
    assert len(checkpoint.tokenizer().encode("a").ids) == 3
    assert len(checkpoint.tokenizer().encode("a " * 700).ids) == 702


def test_pad_id_falls_back_to_the_end_token(tiny_checkpoint: Any, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("llama", lora=False)
    base = tmp_path / "base"
    shutil.copytree(checkpoint.base, base)
    (base / "tokenizer_config.json").unlink()
    config = json.loads((base / "config.json").read_text())
    for pad, end, wanted in [(5, 2, 5), (-1, 2, 2), (None, [7, 8], 7), (None, None, 0)]:
        (base / "config.json").write_text(json.dumps({**config, "pad_token_id": pad, "eos_token_id": end}))
        assert replace(checkpoint, base=base).prompt().pad_id == wanted
    (base / "tokenizer_config.json").write_text(json.dumps({"pad_token": {"content": "</s>", "lstrip": False}}))
    assert replace(checkpoint, base=base).prompt().pad_id == 2


def test_only_the_model_is_copied(tiny_checkpoint: Any, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("llama", lora=False)
    base = tmp_path / "base"
    shutil.copytree(checkpoint.base, base)
    for name in ("modeling_custom.py", "optimizer.pt", "consolidated.safetensors"):
        (base / name).write_bytes(b"x")
    (base / "LICENSE").write_text("terms")
    replace(checkpoint, base=base).save(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "base").iterdir()}
    assert names == {path.name for path in checkpoint.base.iterdir()} | {"LICENSE"}


def test_sharded_base_model(tiny_checkpoint: Any, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    checkpoint = tiny_checkpoint("llama", lora=False)
    base = tmp_path / "base"
    transformers.AutoModelForCausalLM.from_pretrained(checkpoint.base).save_pretrained(base, max_shard_size="60KB")
    shutil.copy(checkpoint.base / "tokenizer.json", base)
    assert len(list(base.glob("*.safetensors"))) > 1
    replace(checkpoint, base=base).save(tmp_path / "out")
    copied = {path.name for path in (tmp_path / "out" / "base").iterdir()}
    assert {path.name for path in base.iterdir()} <= copied | {"chat_template.jinja"}
    assert Checkpoint.load(tmp_path / "out").spec.users == 50


def test_save_never_overwrites(tiny_checkpoint: Any, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("bert")
    (tmp_path / "metrics.json").write_text("{}")
    checkpoint.save(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=r"filterllm.json exists; expected a directory without a checkpoint"):
        checkpoint.save(tmp_path)
    assert tree(tmp_path) == before


def test_failed_save_leaves_nothing(tiny_checkpoint: Any, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("llama")
    rows = next(checkpoint.users.chunks()).copy()
    rows[12, 0] = np.nan
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="row 12"):
        replace(checkpoint, users=UserRows.from_array(rows)).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_progress_reaches_the_end(tiny_checkpoint: Any, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    tiny_checkpoint("llama").save(tmp_path, progress=lambda *step: steps.append(step))
    assert {stage for stage, _, _ in steps} == {"base model files", "users"}
    for stage in ("base model files", "users"):
        last = [step for step in steps if step[0] == stage][-1]
        assert last[1] == last[2]


def test_base_model_from_the_local_hub_cache(
    tiny_checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    checkpoint = tiny_checkpoint("llama", lora=False)
    checkpoint.save(tmp_path)
    calls: list[tuple[str, bool]] = []

    def cached(name: str, *, local_files_only: bool) -> str:
        calls.append((name, local_files_only))
        return str(checkpoint.base)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    file = tmp_path / "filterllm.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model": "maker/model"}))
    assert Checkpoint.load(tmp_path).base == checkpoint.base
    assert calls == [("maker/model", True)]


def test_a_bad_template_is_the_callers_mistake(tiny_checkpoint: Any) -> None:
    checkpoint = tiny_checkpoint("llama", lora=False)
    with pytest.raises(UsageError, match="exactly once"):
        replace(checkpoint, spec=replace(checkpoint.spec, template="nothing"))


def test_reading_needs_no_torch() -> None:
    code = "import sys; import fllm_export.checkpoint.checkpoint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_a_checkpoint_made_of_symbolic_links(tiny_checkpoint: Any, tmp_path: Path) -> None:
    """As in the Hugging Face cache: every file is a link to a blob whose name says nothing."""
    made = tiny_checkpoint("bert", lora=True)
    folder, blobs = tmp_path / "made", tmp_path / "blobs"
    made.save(folder)
    links = tmp_path / "links"
    blobs.mkdir()
    for number, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        file.rename(blobs / f"{number:064x}")
        link = links / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blobs / f"{number:064x}")
    linked = Checkpoint.load(links)
    assert linked.fingerprint() == made.fingerprint()
    linked.save(tmp_path / "copy")
    assert not [path for path in (tmp_path / "copy").rglob("*") if path.is_symlink()]
    assert Checkpoint.load(tmp_path / "copy").fingerprint() == made.fingerprint()


def test_a_base_model_is_checked_once(tiny_checkpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_checkpoint("bert", lora=False).base.parent
    checks: list[Path] = []
    check = BaseModel.check
    monkeypatch.setattr(BaseModel, "check", lambda base: checks.append(base) or check(base))
    checkpoint = Checkpoint.load(path)
    checkpoint.prompt(), checkpoint.tokenizer(), checkpoint.fingerprint()
    assert checks == [path / "base"]
