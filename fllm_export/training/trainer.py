"""Stage 2: LoRA on the frozen encoder, with mapper and user rows, against L_dist + lambda * L_guid."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fllm_export import arguments
from fllm_export.checkpoint.checkpoint import BASE_FOLDER, Checkpoint
from fllm_export.checkpoint.feature_layers import feature_layers
from fllm_export.checkpoint.model import ItemEncoder
from fllm_export.checkpoint.spec import SPEC_FILE, CheckpointSpec
from fllm_export.checkpoint.users import UserRows
from fllm_export.errors import UsageError
from fllm_export.evaluation.dataset import Dataset, Positions
from fllm_export.evaluation.metrics import Ranking
from fllm_export.files import publish_json
from fllm_export.progress import Progress, silent
from fllm_export.system_errors import check_place
from fllm_export.training.descent import Descent
from fllm_export.training.encoders import EncoderChoice, choose_encoder
from fllm_export.training.head import Head
from fllm_export.training.item_tokens import ItemTokens
from fllm_export.training.lora import add_lora, load_encoder, lora_training, save_adapter
from fllm_export.training.recipe import Recipe
from fllm_export.training.run_state import EpochRecord, RunState
from fllm_export.training.vocabulary import Vocabulary, build_vocabulary

REPORT_FILE = "training.json"
SELECTION_K = 20


@dataclass(frozen=True)
class TrainingReport:
    """What a run did; written beside the checkpoint as ``training.json``.

    Attributes:
        recipe: every hyper-parameter.
        encoder: its name, or its folder's name.
        dataset_sha256: of the data set's two files.
        items: items trained on.
        users: user rows.
        epochs: one record an epoch; 0 is the warm-up.
        kept_epoch: the one that the checkpoint holds, chosen by user recall@20 on cold_val alone; in a run with
            ``max_steps`` the last. When it is 0, LoRA improved nothing and the adapter changes nothing.
        seconds: wall time by stage.
    """

    recipe: Recipe
    encoder: str
    dataset_sha256: str
    items: int
    users: int
    epochs: list[EpochRecord]
    kept_epoch: int
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return asdict(self)


def train(
    dataset: Dataset | str | Path,
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    encoder: str | Path = "minilm",
    progress: Progress = silent,
) -> TrainingReport:
    """Train a FilterLLM and save it as a self-contained checkpoint in ``out``.

    After every epoch the run's state is kept in ``<out>.training``; the same call goes on where it stopped and
    gives, with the same number of threads, the same result as a run that never stopped. The folder is removed
    when the checkpoint is complete.

    Args:
        dataset: a data set or its directory; it needs pairs in ``train`` and ``cold_val``.
        out: a new or empty directory.
        recipe: the hyper-parameters; the defaults when not given.
        encoder: ``minilm``, ``mpnet``, ``smollm2`` or a local Hugging Face directory.
        progress: counts items, epochs and steps.

    Raises:
        UsageError: ``out`` is not empty, an argument is invalid, or an unfinished run of other options is there.
        HardwareError: the encoder's package is not installed.
    """
    out, recipe = arguments.path(out, "out"), Recipe() if recipe is None else recipe
    encoder = str(arguments.path(encoder, "encoder"))
    if not isinstance(recipe, Recipe):
        raise UsageError(f"recipe is a {type(recipe).__name__}", expected="a Recipe")
    if not isinstance(dataset, Dataset):
        dataset = Dataset.load(arguments.path(dataset, "dataset"))
    check_place(out, "out")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        held = "holds a checkpoint" if (out / SPEC_FILE).exists() else "is not empty"
        raise UsageError(f"{out} {held}", expected="a new directory", fix="Choose another, or delete it")
    if not len(dataset.splits["cold_val"]):
        raise UsageError(
            "the data set has no pairs in cold_val",
            expected="at least one pair, which is needed to choose the best epoch",
        )
    workspace = out.with_name(out.name + ".training")
    choice = choose_encoder(encoder, workspace)
    identity = {**recipe.to_json(), "encoder": choice.fingerprint(), "dataset": dataset.sha256}
    run = RunState.open(workspace, identity)
    # Seeds are set below; the caller's random state comes out as it went in.
    with torch.random.fork_rng(devices=[]):
        trainer = Trainer(dataset, recipe, choice, run, progress)
        trainer.run_epochs()
        trainer.checkpoint(workspace).save(out, progress)
    name = encoder if not Path(encoder).is_dir() else Path(encoder).resolve().name
    report = TrainingReport(
        recipe=recipe,
        encoder=name,
        dataset_sha256=dataset.sha256,
        items=len(trainer.items),
        users=len(dataset.user_ids),
        epochs=run.records,
        kept_epoch=trainer.kept_epoch,
        seconds=run.seconds,
    )
    publish_json(out / REPORT_FILE, report.to_json())
    shutil.rmtree(workspace)
    return report


class Trainer:
    """One run: the model, the items it is trained on, and the steps.

    Attributes:
        items: the training items, int64 [T].
        head: mapper and user rows.
        encoder: the frozen encoder with LoRA (without, when the recipe has no LoRA epochs).
    """

    def __init__(
        self, dataset: Dataset, recipe: Recipe, choice: EncoderChoice, run: RunState, progress: Progress
    ) -> None:
        self._dataset, self._recipe, self._choice, self._run, self._progress = dataset, recipe, choice, run, progress
        train, held_out = dataset.splits["train"], dataset.splits["cold_val"]
        self.items = self._subset(train.distinct_items)
        self._validation = self._subset(held_out.distinct_items)
        self._truth = held_out.users_of(self._validation)
        liked = train.users_of(self.items)
        self._liked = {int(i): torch.from_numpy(users) for i, users in zip(self.items, liked, strict=True)}
        self._max_length = choice.longest(recipe.max_length)
        self._tokens = ItemTokens.of(dataset.texts, choice, self._max_length)
        torch.manual_seed(recipe.seed)
        model, hidden = load_encoder(choice.path)
        self.encoder = ItemEncoder(model, choice.pooling, nn.Identity(), feature_layers(choice.features))
        self.encoder.requires_grad_(False)
        self.encoder.positions.require(self._max_length, choice.path)
        self._frozen = run.tensors("frozen_states", self._frozen_states)
        stored = run.tensors("vocabulary", self._vocabulary)
        width = choice.features.width(hidden)
        assert width is not None
        self.head = Head(recipe.mapper, width, Vocabulary(stored["users"], stored["items"]))
        if recipe.epochs:
            self.encoder.encoder = add_lora(model, recipe)

    def _subset(self, items: Positions) -> Positions:
        """Return all items, or in a short run as many as its steps take."""
        steps, batch = self._recipe.max_steps, self._recipe.batch
        if steps is None or steps * batch >= len(self._dataset.splits["train"].distinct_items):
            return items
        chosen = np.random.default_rng(self._recipe.seed).permutation(items)[: steps * batch]
        return np.sort(chosen)

    def _frozen_states(self) -> dict[str, Tensor]:
        self.encoder.eval()
        everything = np.concatenate([self.items, self._validation])
        states = self._tokens.encode(self.encoder, everything, "frozen encoder", self._progress)
        return {"items": states[: len(self.items)].clone(), "validation": states[len(self.items) :].clone()}

    def _vocabulary(self) -> dict[str, Tensor]:
        dataset = self._dataset
        users, items = len(dataset.user_ids), len(dataset.item_ids)
        made = build_vocabulary(dataset.splits["train"], users, items, self._recipe, self._progress)
        return {"users": made.users, "items": made.items}

    def run_epochs(self) -> None:
        """Do the warm-up and the LoRA epochs that are not done yet.

        Raises:
            UsageError: the loss is no longer finite.
        """
        if self._run.latest is None:
            self._warm_up()
        else:
            self._restore(self._run.latest)
        if self._recipe.epochs:
            self._fine_tune()

    def _warm_up(self) -> None:
        recipe, began = self._recipe, time.monotonic()
        states = self._frozen["items"]
        torch.manual_seed(recipe.seed)
        self.head.fit(states, torch.from_numpy(self.items))
        steps = -(-len(self.items) // recipe.warmup_batch)
        groups = [{"params": list(self.head.parameters()), "peak": recipe.warmup_learning_rate}]
        descent = Descent(groups, steps * recipe.warmup_epochs)
        best: tuple[float, Ranking, dict[str, Tensor]] | None = None
        for epoch in range(recipe.warmup_epochs):
            loss = self._warm_up_pass(states, descent)
            ranking = self._validate(self._frozen["validation"])
            if best is None or ranking.recall > best[1].recall:
                best = loss, ranking, {name: value.clone() for name, value in self.head.state_dict().items()}
            self._progress("stage 2: warm-up", epoch + 1, recipe.warmup_epochs)
        assert best is not None
        self.head.load_state_dict(best[2])
        self._keep(0, best[0], best[1], began, None)

    def _warm_up_pass(self, states: Tensor, descent: Descent) -> float:
        order, size = torch.randperm(len(self.items)), self._recipe.warmup_batch
        total = 0.0
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            total += descent.step(self._loss(states[chosen], self.items[chosen.numpy()])) * len(chosen)
        return total / len(order)

    def _fine_tune(self) -> None:
        recipe = self._recipe
        per_epoch = -(-len(self.items) // recipe.batch)
        total = min(recipe.epochs * per_epoch, recipe.max_steps or math.inf)
        lora = [p for p in self.encoder.parameters() if p.requires_grad]
        groups = [
            {"params": lora, "peak": recipe.learning_rate},
            {"params": list(self.head.parameters()), "peak": recipe.head_learning_rate},
        ]
        descent = Descent(groups, int(total))
        first = self._run.latest or 0
        descent.restore(self._run.optimizer(first), first * per_epoch)
        for epoch in range(first + 1, -(-int(total) // per_epoch) + 1):
            self._epoch(epoch, descent, per_epoch)

    def _epoch(self, epoch: int, descent: Descent, per_epoch: int) -> None:
        recipe, began = self._recipe, time.monotonic()
        # A new seed an epoch: a resumed run draws what an uninterrupted one would have drawn.
        torch.manual_seed(recipe.seed + epoch)
        lora_training(self.encoder)
        batches = self._tokens.shuffled_batches(self.items, recipe.batch, (recipe.seed, epoch))
        batches = batches[: descent.total - (epoch - 1) * per_epoch]
        total, seen = 0.0, 0
        for items in batches:
            states = self.encoder.pooled(*self._tokens.batch(items))
            total += descent.step(self._loss(states, items)) * len(items)
            seen += len(items)
            self._progress("stage 2: LoRA", descent.done, descent.total)
        self.encoder.eval()
        states = self._tokens.encode(self.encoder, self._validation, "validation", self._progress)
        self._keep(epoch, total / seen, self._validate(states), began, descent.state())

    def _loss(self, states: Tensor, items: Positions) -> Tensor:
        users = [self._liked[int(i)] for i in items]
        return self.head.loss(states, torch.from_numpy(items), users, self._recipe.guidance)

    @torch.no_grad()
    def _validate(self, states: Tensor) -> Ranking:
        k = min(SELECTION_K, len(self._dataset.user_ids))
        best = self.head.scores(states).topk(k, dim=1).indices
        return Ranking.of(best.numpy(), self._truth)

    def _keep(self, epoch: int, loss: float, ranking: Ranking, began: float, optimizer: dict[str, Any] | None) -> None:
        seconds = round(time.monotonic() - began, 1)
        record = EpochRecord(epoch, round(loss, 6), round(ranking.precision, 6), round(ranking.recall, 6), seconds)
        self._run.save_epoch(record, self._weights(), optimizer)

    def _weights(self) -> dict[str, Tensor]:
        trained = {f"encoder.{n}": p for n, p in self.encoder.named_parameters() if p.requires_grad}
        return {**trained, **{f"head.{n}": value for n, value in self.head.state_dict().items()}}

    def _restore(self, epoch: int) -> None:
        weights = self._run.weights(epoch)
        own = self._weights()
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(weights[name])

    @property
    def kept_epoch(self) -> int:
        """The epoch that becomes the checkpoint: the best one, or the last one of a run cut short by ``max_steps``."""
        return self._run.best if self._recipe.max_steps is None else self._run.records[-1].epoch

    def checkpoint(self, workspace: Path) -> Checkpoint:
        """Return the kept epoch as a checkpoint whose adapter lies in ``workspace``."""
        self._restore(self.kept_epoch)
        adapter = save_adapter(self.encoder.encoder, workspace / "adapter") if self._recipe.epochs else None
        rows = self.head.user_rows.detach().numpy()
        spec = CheckpointSpec(
            base_model=BASE_FOLDER,
            template=self._choice.template,
            pooling=self._choice.pooling,
            max_length=self._max_length,
            padding_side=self._choice.padding_side,
            mapper=self._recipe.mapper,
            dim=self._recipe.dim,
            users=len(rows),
            features=self._choice.features.specs,
        )
        users = UserRows.from_array(rows, ids=self._dataset.user_ids)
        mapper, features = self.head.folded_mapper(), self._choice.features
        return Checkpoint(spec, self._choice.path, adapter, mapper, users, features)
