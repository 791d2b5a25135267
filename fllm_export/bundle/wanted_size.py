"""What ``--bytes-per-user`` requests, and the forms of rows that it leaves to choose from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from fllm_export import arguments
from fllm_export.calibration.row_form import FLOATS, RowForm
from fllm_export.calibration.size_search import Line, Sized
from fllm_export.errors import UsageError
from fllm_export.table.codec_names import CODEC_NAMES, UNSKETCHED, CodecName
from fllm_export.table.codecs import codec
from fllm_export.table.footprint import Footprint
from fllm_export.table.options import TableOptions

BytesPerUser = int | Literal["auto"]

_MULTIPLE, _SMALL = 8, 64


@dataclass(frozen=True)
class WantedSize:
    """A size that the forms of rows are searched for.

    Attributes:
        bytes_per_user: bytes of the table's files per user, at most; ``auto`` for the smallest size that has the
            required recall.
        quant: the only codec that may be chosen; None for any.

    Raises:
        UsageError: a value is invalid.
    """

    bytes_per_user: BytesPerUser
    quant: CodecName | None = None

    def __post_init__(self) -> None:
        size = self.bytes_per_user
        if isinstance(size, str):
            if size != "auto":
                raise UsageError(f"bytes_per_user is {size!r:.60}", expected="an integer of 1 or more, or auto")
        else:
            object.__setattr__(self, "bytes_per_user", arguments.integer(size, "bytes_per_user", least=1))

    @classmethod
    def of(cls, bytes_per_user: Any, quant: CodecName | None, *, operating_point: bool) -> WantedSize | None:
        """Return what a caller requests, None where there is no such request.

        Args:
            bytes_per_user: as the caller gave it.
            quant: the codec that the caller named, or None.
            operating_point: whether there is one beside it.

        Raises:
            UsageError: a value is invalid, or there is an operating point too.
        """
        if bytes_per_user is None:
            return None
        if operating_point:
            raise UsageError(
                "bytes_per_user given beside an operating point",
                expected="one or the other, because both set the codec and the dimension",
            )
        return cls(bytes_per_user, quant)

    @property
    def most(self) -> int | None:
        """Bytes per user at most, None where the recall decides."""
        return None if self.bytes_per_user == "auto" else self.bytes_per_user


@dataclass(frozen=True)
class Forms:
    """The forms that a build can choose from, with their exact sizes.

    Attributes:
        wanted: the request.
        table: how the table is written; its codec does not count.
        users: number of users.
        dim: dimension of their rows.
        bias: whether they have biases.
        only_dim: the only dimension that may be chosen; None for any.
        rounding: ``nearest`` or ``data`` for that one only, ``auto`` for both.
        measurable: the largest dimension that the texts can measure directions of; 0 for none.
    """

    wanted: WantedSize
    table: TableOptions
    users: int
    dim: int
    bias: bool
    only_dim: int | None
    rounding: Literal["auto", "nearest", "data"]
    measurable: int

    def lines(self) -> list[Line]:
        """Return the forms by codec and rounding, those of few bits first, with ascending dimensions.

        Rows in all their dimensions that are rounded to the nearest pass no directions: they are a line of their own.
        """
        found: list[Line] = []
        for quant in self._codecs():
            dims = self._dims(quant)
            if self.rounding != "nearest" and quant not in FLOATS:
                found.append(self._sized(quant, "data", [dim for dim in dims if dim <= self.measurable]))
            if self.rounding != "data":
                found.append(
                    self._sized(quant, "nearest", [dim for dim in dims if dim <= self.measurable and dim < self.dim])
                )
            if self.rounding != "data" and self.only_dim is None:
                found.append(self._sized(quant, "nearest", [self.dim]))
        return [line for line in found if line]

    def check(self, lines: list[Line]) -> None:
        """Check that there is something to choose, and that the requested size tells forms apart.

        Raises:
            UsageError: there is not, all forms are small enough, or none is.
        """
        forms = [one for line in lines for one in line]
        if len(forms) < 2:
            raise UsageError(
                f"bytes_per_user leaves {f'only {forms[0].form}' if forms else 'nothing'} to choose",
                expected="at least two forms of rows",
                fix="Omit --bytes-per-user, or one of --quant, --dim and --rounding beside it",
            )
        smallest, largest = (choose(forms, key=lambda one: one.bytes) for choose in (min, max))
        most = self.wanted.most
        if most is not None and most < smallest.bytes:
            raise UsageError(
                f"bytes_per_user is {most}, and the smallest table takes {smallest.bytes:,.1f} bytes per user "
                f"({smallest.form}; id, scale{', bias' if self.bias else ''} and files counted)",
                expected=f"at least {math.ceil(smallest.bytes):,}",
                fix="Raise --bytes-per-user",
            )
        if most is not None and most >= largest.bytes:
            raise UsageError(
                f"bytes_per_user is {most}, and the largest table takes {largest.bytes:,.1f} bytes per user "
                f"({largest.form})",
                expected=f"at most {math.ceil(largest.bytes) - 1:,}: no other size rules anything out",
                fix="Omit --bytes-per-user and choose --quant, or lower it",
            )

    def _codecs(self) -> Iterator[CodecName]:
        known = [name for name in CODEC_NAMES if self.wanted.quant in (None, name)]
        for name in sorted(known, key=lambda one: codec(one).row_bytes(1024)):
            unfit = (self.table.sketch == "yes" and name in UNSKETCHED) or (self.rounding == "data" and name in FLOATS)
            if not unfit:
                yield name

    def _dims(self, quant: CodecName) -> list[int]:
        if self.only_dim is not None:
            return [self.only_dim]
        step = codec(quant).group_dims if codec(quant).in_blocks else _MULTIPLE if self.dim >= _SMALL else 1
        return [*range(step, self.dim, step), self.dim]

    def _sized(self, quant: CodecName, rounding: Literal["nearest", "data"], dims: list[int]) -> Line:
        options = replace(self.table, quant=quant)
        found = []
        for dim in dims:
            size = Footprint.of(options, self.users, dim, bias=self.bias).disk / self.users
            found.append(Sized(RowForm(quant, dim, rounding), size))
        return found
