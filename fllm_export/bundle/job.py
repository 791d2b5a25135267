"""A build job: the inputs of a build, checked, and what is derived from them once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from fllm_export import __version__, arguments
from fllm_export.bundle.choices import ROUNDINGS, Choices, Dim, RoundingName, checked_dim
from fllm_export.bundle.ledger import step_key
from fllm_export.bundle.wanted_size import Forms, WantedSize
from fllm_export.calibration.row_form import RowForm
from fllm_export.calibration.transform import Transform
from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.encoder_precisions import ENCODER_PRECISIONS, EncoderPrecision
from fllm_export.errors import UsageError
from fllm_export.extras import require
from fllm_export.item_texts import ItemTexts
from fllm_export.manifest import Manifest
from fllm_export.progress import Progress
from fllm_export.table.options import TableOptions

if TYPE_CHECKING:
    from fllm_export.checkpoint.adapted import AdaptedModel
    from fllm_export.checkpoint.merge import Merged

Exporter = Literal["torch", "optimum"]
EXPORTERS: tuple[Exporter, ...] = ("torch", "optimum")

PARITY_TEXTS = 256
PROBE_TEXTS = 8
MOMENT_TEXTS = 16_384
"""Texts that the moments of item vectors are measured on, at most."""
CHOICE_TEXTS = 512
"""Texts that choose the form of rows where a size is wanted, at most a quarter of those beyond parity."""
CHOICE_TEXTS_LEAST = 32


@dataclass(frozen=True)
class Options:
    """What the caller may choose about a build.

    Attributes:
        table: how the user table is written.
        min_recall: minimum recall@k of the bundle against the fp32 checkpoint.
        k: the depth of that recall.
        exporter: ``torch`` (torch.onnx) or ``optimum``.
        threads: threads for encoding and scanning.
        encoder_precision: of the encoder on CPUs: ``fp32``, ``int8`` or ``int4``.
        dim: dimension that rows and item vectors are cut to; ``auto`` is the smallest that keeps the ranking well
            enough, and None leaves them as they are.
        rounding: how numbers become codes: ``nearest``, ``data`` (by what item vectors have in common), or ``auto``.
        size: the size for which the codec, the dimension and the rounding are searched, ``dim`` and ``rounding``
            restricting the search; None where there is no search.

    Raises:
        UsageError: a value is invalid, or ``dim`` is ``auto`` or the table has refinement rows beside a size.
    """

    table: TableOptions
    min_recall: float
    k: int
    exporter: Exporter
    threads: int
    dim: Dim | None = None
    encoder_precision: EncoderPrecision = "fp32"
    rounding: RoundingName = "auto"
    size: WantedSize | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "min_recall", arguments.real(self.min_recall, "min_recall", least=0, most=1))
        object.__setattr__(self, "k", arguments.integer(self.k, "k", least=1))
        object.__setattr__(self, "exporter", arguments.one_of(self.exporter, "exporter", EXPORTERS))
        arguments.one_of(self.encoder_precision, "encoder_precision", ENCODER_PRECISIONS)
        object.__setattr__(self, "rounding", arguments.one_of(self.rounding, "rounding", ROUNDINGS))
        object.__setattr__(self, "dim", checked_dim(self.dim))
        if self.size is not None and self.dim == "auto":
            raise UsageError(
                "dim is auto and bytes_per_user is set",
                expected="one or the other, because bytes_per_user chooses the dimension anyway",
                fix="Omit --dim, or choose a number to restrict the search to it",
            )
        if self.size is not None and self.table.refine != "no":
            raise UsageError(
                f"refine is {self.table.refine} and bytes_per_user is set",
                expected="one or the other: the search measures rows alone; refinement rows would raise their recall",
                fix="Build with --bytes-per-user alone, then with --refine and the --quant and --dim that it chose, or "
                "smaller ones of its table",
            )

    @property
    def cut_recall(self) -> float:
        """Recall@k that ``dim="auto"`` keeps: half of what min_recall lets go of is left to the codec."""
        return 1 - (1 - self.min_recall) / 2


class Job:
    """Everything that the steps of one build share.

    Attributes:
        checkpoint: what is built.
        texts: the calibration texts.
        sample: those of them that parity is measured on.
        others: the texts by up to :data:`MOMENT_TEXTS` of which item vectors are measured: all that are in neither of
            the other two.
        choice_texts: those that choose the form of rows where a size is wanted.
        requested: the caller's choices.
        options: the same; where a size is wanted, with the form that was chosen, and before that with the largest one
            that may be.
        progress: told of every stage.
        transform: folded into the mapper, and applied to the rows when they are written; None changes nothing. The
            step ``transform`` sets it where the choices need one.
        scan_dim: dimension of the rows that are scanned, where the step ``transform`` has chosen it; else None.
        metric: second moment of the transformed item vectors, float64 [dim, dim], by which rows are rounded; the step
            ``transform`` sets it where they are rounded by data.
        choices: what the options come to for this checkpoint and these texts.

    Raises:
        UsageError: ``k`` is not below the number of users, ``dim`` is not below that of the rows, another option
            changes nothing, or there are too few texts to measure item vectors on.
    """

    def __init__(self, checkpoint: Checkpoint, texts: ItemTexts, options: Options, progress: Progress) -> None:
        if options.k >= checkpoint.users.rows:
            raise UsageError(
                f"k is {options.k} and the checkpoint has {checkpoint.users.rows} users",
                expected="k below the number of users: the recall of all users is always 1",
                fix="Lower --k",
            )
        self.checkpoint = checkpoint
        self.texts = texts
        self.sample, self.others = texts.split(PARITY_TEXTS)
        self.choice_texts: list[str] = []
        self.requested = self.options = options
        self.progress = progress
        self.transform: Transform | None = None
        self.scan_dim: int | None = None
        self.metric: npt.NDArray[np.float64] | None = None
        if options.size is None:
            self.choices = self._resolved()
        else:
            self._set_texts_aside()
            self.settle(self._largest())

    def settle(self, form: RowForm) -> None:
        """Go on as if the caller had requested this form of rows."""
        table = replace(self.options.table, quant=form.quant)
        dim = form.dim if form.dim < self.checkpoint.users.dim else None
        self.options = replace(self.options, table=table, dim=dim, rounding=form.rounding)
        self.choices = self._resolved()

    def _resolved(self) -> Choices:
        options = self.options
        return Choices.of(
            options.table.quant, options.dim, options.rounding, self.checkpoint.users.dim, len(self.others)
        )

    def _set_texts_aside(self) -> None:
        """Take the texts that choose away from those that item vectors are measured on."""
        count = min(CHOICE_TEXTS, len(self.others) // 4)
        if count < CHOICE_TEXTS_LEAST:
            least = PARITY_TEXTS + 4 * CHOICE_TEXTS_LEAST
            raise UsageError(
                f"there are {len(self.texts.texts)} calibration texts and bytes_per_user is set",
                expected=f"at least {least}: {PARITY_TEXTS} to report on, and of the others a quarter to choose by",
                fix="Give more item texts to --calibration, for example those of the whole catalogue",
            )
        chosen = set(np.random.default_rng(1).choice(len(self.others), count, replace=False).tolist())
        self.choice_texts = [text for number, text in enumerate(self.others) if number in chosen]
        self.others = [text for number, text in enumerate(self.others) if number not in chosen]

    def forms(self, rank: int | None = None) -> Forms:
        """Return the forms of rows that a wanted size leaves to choose from.

        Args:
            rank: of the scores of the rows, once it is known.
        """
        asked, users = self.requested, self.checkpoint.users
        if asked.size is None:
            raise AssertionError("there is no size to search for")
        dim = asked.dim if isinstance(asked.dim, int) else None
        measurable = len(self.others) if rank is None else min(len(self.others), rank)
        bias = users.bias is not None
        return Forms(asked.size, asked.table, users.rows, users.dim, bias, dim, asked.rounding, measurable)

    def _largest(self) -> RowForm:
        """Check the request, and return the largest form that satisfies it, which forecasts take."""
        asked, forms = self.requested, self.forms()
        if asked.dim is not None or asked.rounding == "data":
            quant = forms.wanted.quant or "int8"
            Choices.of(quant, asked.dim, asked.rounding, self.checkpoint.users.dim, len(self.others))
        lines = forms.lines()
        forms.check(lines)
        most = forms.wanted.most
        fitting = [one for line in lines for one in line if most is None or one.bytes <= most]
        return max(fitting, key=lambda one: one.bytes).form

    @property
    def moment_texts(self) -> list[str]:
        """The texts that the moments of item vectors are measured on; short ones first, which pads least."""
        others = self.others
        if len(others) > MOMENT_TEXTS:
            chosen = np.random.default_rng(0).choice(len(others), MOMENT_TEXTS, replace=False)
            others = [others[i] for i in sorted(chosen)]
        return sorted(others, key=len)

    @classmethod
    def prepare(
        cls,
        checkpoint: Checkpoint | str | Path,
        calibration: str | Path | Sequence[str],
        options: Options,
        progress: Progress,
    ) -> Job:
        """Load what is given by its path.

        Raises:
            BundleError: the checkpoint or the file of texts is damaged.
            UsageError: there is no text, or ``k`` is not below the number of users.
        """
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint.load(arguments.path(checkpoint, "checkpoint"))
        return cls(checkpoint, ItemTexts.of(calibration, "calibration"), options, progress)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything in the checkpoint."""
        self.progress("fingerprint", 0, 1)
        fingerprint = self.checkpoint.fingerprint()
        self.progress("fingerprint", 1, 1)
        return fingerprint

    @cached_property
    def merged(self) -> Merged:
        """The merged model, made when the first step needs it."""
        merge = require("fllm_export.checkpoint.merge").merge
        self.progress("merge", 0, 1)
        merged: Merged = merge(self.checkpoint, self.probes)
        self.progress("merge", 1, 1)
        return merged if self.transform is None else merged.then(self.transform.items)

    @cached_property
    def reference(self) -> AdaptedModel:
        """The fp32 checkpoint, adapter and all: what the bundle is compared with."""
        reference: AdaptedModel = require("fllm_export.checkpoint.adapted").load_unmerged(self.checkpoint)
        return reference

    @cached_property
    def item_vectors(self) -> npt.NDArray[np.float32]:
        """The fp32 checkpoint's item vectors [texts, dim] of the sample."""
        self.progress("fp32 item vectors", 0, 1)
        z: npt.NDArray[np.float32] = self.reference.item_vectors(self.sample)
        self.progress("fp32 item vectors", 1, 1)
        return z

    @property
    def dim(self) -> int:
        """Dimension of the bundle's item vectors, and of its user rows as far as these are stored whole."""
        if self.transform is not None:
            return self.transform.dim
        if self.options.table.refine != "no":
            return self.checkpoint.users.dim
        return self.options.dim if isinstance(self.options.dim, int) else self.checkpoint.users.dim

    @property
    def row_dim(self) -> int:
        """Dimension of the user rows that are scanned: the first dimensions, where there are refinement rows."""
        if self.scan_dim is not None:
            return self.scan_dim
        return self.options.dim if isinstance(self.options.dim, int) else self.dim

    @property
    def probes(self) -> list[str]:
        """A few texts to try single parts on, the shortest and the longest among them."""
        ends = [min(self.sample, key=len), max(self.sample, key=len)]
        return list(dict.fromkeys([*ends, *self.sample]))[:PROBE_TEXTS]

    @property
    def table_facts(self) -> dict[str, Any]:
        """What decides the head graphs."""
        users = self.checkpoint.users
        return {"quant": self.options.table.quant, "dim": self.row_dim, "bias": users.bias is not None}

    @property
    def draft_manifest(self) -> Manifest:
        """The manifest of the bundle while it is built: without files and provenance."""
        return Manifest({}, self.checkpoint.prompt(), self.dim, table=None, provenance={})

    def key(self, step: str, *inputs: Any) -> str:
        """Return a hash of the checkpoint, the transform and whatever else decides a step's output."""
        transform = None if self.transform is None else self.transform.fingerprint
        return self.source_key(step, transform, *inputs)

    def source_key(self, step: str, *inputs: Any) -> str:
        """Return a hash of the checkpoint and inputs, for what is done before there is a transform."""
        return step_key(step, __version__, self.fingerprint, *inputs)

    @property
    def measured_by(self) -> tuple[Any, ...]:
        """What decides the moments of the item vectors; empty where they are not needed."""
        if self.requested.size is not None:
            return (self.texts.sha256, MOMENT_TEXTS, CHOICE_TEXTS)
        return (self.texts.sha256, MOMENT_TEXTS) if self.choices.measured else ()

    @property
    def search_choices(self) -> tuple[Any, ...]:
        """Everything that decides the form of rows where a size is wanted; empty where none is."""
        asked = self.requested
        if asked.size is None:
            return ()
        by_recall = (asked.min_recall,) if asked.size.most is None else ()
        return (asdict(asked.size), asdict(asked.table), asked.dim, asked.rounding, asked.k, *by_recall)

    @property
    def transform_choices(self) -> tuple[Any, ...]:
        """Everything that decides the transform; empty where there is none."""
        options = self.options
        share = (options.k, options.cut_recall) if options.dim == "auto" else ()
        whole = ("whole",) if options.dim is not None and options.table.refine != "no" else ()
        return (*self.choices.key, *self.measured_by, *share, *whole)

    @property
    def cpu_encoder_choices(self) -> tuple[Any, ...]:
        """Everything that decides the encoder for CPUs, besides the exported one; nothing where they are the same."""
        precision = self.options.encoder_precision
        if precision == "fp32":
            return ()
        return (precision, require("fllm_export.graphs.quantised_encoder").needs_reduced_range())

    @property
    def users_key(self) -> str:
        """A hash of everything that decides the user table. The texts do where item vectors choose a sketch."""
        table = self.options.table
        by_items = table.sketch != "no" or self.metric is not None
        return self.key("users", asdict(table), self.choices.rounding, self.texts.sha256 if by_items else None)

    @property
    def build_key(self) -> str:
        """A hash of everything that decides the bundle, the recall it must reach excepted.

        It is known before the first step, so the choices of the transform stand for the transform.
        """
        options = self.requested
        chosen = self.transform_choices if options.size is None else (*self.search_choices, *self.measured_by)
        inputs = (asdict(options.table), options.exporter, options.k, self.texts.sha256, chosen)
        return self.source_key("bundle", *inputs, *self.cpu_encoder_choices)
