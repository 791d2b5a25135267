"""What a caller may choose about how a table is written. Without NumPy, so that the command line can read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypedDict, get_args

from fllm_export.arguments import integer, one_of
from fllm_export.errors import UsageError
from fllm_export.table.codec_names import CODEC_NAMES, REFINE_NAMES, UNSKETCHED, CodecName, RefineName

Choice = Literal["auto", "yes", "no"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
SHARD_BYTES = 256 << 20
"""Size of a shard at most, where nothing else is chosen."""


class TableChoices(TypedDict, total=False):
    """The fields of :class:`TableOptions` as keyword arguments, for signatures that pass them on."""

    quant: CodecName
    shard_bytes: int
    sketch: Choice
    cluster: Choice
    refine: RefineName


@dataclass(frozen=True)
class TableOptions:
    """How a table is written. Nothing here depends on the rows.

    A field with ``help`` in its metadata is an option of every verb that writes a table: one of ``values``, or bytes.

    Attributes:
        quant: how a row is stored: fp32, fp16, int8, fp8, int4, int4row, int2 or int1.
        shard_bytes: size of a shard at most; where rows lie in clusters that are well apart, the bounds of tiles can
            add a 32nd of its int8 rows. About three shards are held in memory while they are written, and where rows
            are clustered also 160 bytes per row of one shard.
        sketch: ``yes`` stores a sketch beside each row, half as many bytes again, by which a search that needs no
            exact log-probabilities rules most rows out unread; ``no`` does not; ``auto`` does for int8 tables of
            more than one shard. int4row, int2 and int1 tables have none.
        cluster: ``yes`` stores rows that lie together in one tile, with bounds on the tile's scores: a search then
            leaves whole tiles out, and one that a budget cuts off has seen the best tiles first; ``no`` does not;
            ``auto`` does for tables of more than one shard. Tiles end where clusters do, where these lie well apart;
            releases that do not know such tiles refuse the table.
        refine: ``int8`` or ``fp16`` stores every row once more, in that codec and with all dimensions, in files of its
            own. A search reads from them only the rows of its best candidates, and ranks these again. ``no`` does not.

    Raises:
        UsageError: a value is invalid.
    """

    quant: CodecName = field(
        default="int8",
        metadata={
            "help": "Codec of user rows. int1, int2 and int4row: 1, 2 and 4 bits per dimension, one scale per row.",
            "values": CODEC_NAMES,
        },
    )
    shard_bytes: int = field(
        default=SHARD_BYTES,
        metadata={
            "help": "Maximum size of a shard: bytes, or an integer with K, M or G (2^10, 2^20 or 2^30 bytes). Writing "
            "holds about three shards in memory. Each machine that shares a table needs a shard of its own."
        },
    )
    sketch: Choice = field(
        default="auto",
        metadata={
            "help": "Store a sketch, with which searches skip most rows. auto: for int8 tables of several shards.",
            "values": CHOICES,
        },
    )
    cluster: Choice = field(
        default="auto",
        metadata={
            "help": "Group similar rows into tiles with bounds on the scores. auto: for tables of several shards.",
            "values": CHOICES,
        },
    )

    refine: RefineName = field(
        default="no",
        metadata={
            "help": "Also store rows in a finer codec, by which searches rank their best candidates again.",
            "values": REFINE_NAMES,
        },
    )

    def __post_init__(self) -> None:
        if not isinstance(self.quant, str) or self.quant not in CODEC_NAMES:
            raise UsageError(f"there is no codec {self.quant!r}", expected="one of " + ", ".join(CODEC_NAMES))
        object.__setattr__(self, "shard_bytes", integer(self.shard_bytes, "shard_bytes", least=1))
        for name, choice in (("sketch", self.sketch), ("cluster", self.cluster)):
            one_of(choice, name, CHOICES)
        one_of(self.refine, "refine", REFINE_NAMES)
        if self.sketch == "yes" and self.quant in UNSKETCHED:
            raise UsageError(
                f"sketch is 'yes' and quant '{self.quant}', whose rows are as short as a sketch",
                expected="sketch 'auto' or 'no', or a codec of more bits",
            )
