from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

import numpy as np
import pytest

from fllm_export import UsageError
from fllm_export.table.options import TableChoices, TableOptions


def test_keyword_arguments_are_the_fields_of_the_options() -> None:
    assert get_type_hints(TableChoices) == {
        field.name: get_type_hints(TableOptions)[field.name] for field in fields(TableOptions)
    }


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"quant": "int3"}, "there is no codec 'int3'; expected one of fp32"),
        ({"sketch": "maybe"}, "sketch is 'maybe'; expected one of auto, yes, no"),
        ({"quant": "int2", "sketch": "yes"}, "sketch is 'yes' and quant 'int2'.*expected sketch 'auto' or 'no'"),
        ({"cluster": True}, "cluster is True"),
        ({"shard_bytes": 0}, "shard_bytes is 0; expected an integer of 1 or more"),
        ({"shard_bytes": 1e6}, "shard_bytes is 1000000.0"),
    ],
)
def test_invalid_choices_are_refused(choices: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TableOptions(**choices)


def test_a_numpy_integer_is_an_integer() -> None:
    assert type(TableOptions(shard_bytes=np.int64(4096)).shard_bytes) is int
