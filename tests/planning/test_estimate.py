"""A plan is sums and products of exact bytes and measured rates; what it says fits, fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fllm_export import Bundle, UsageError, UserTable, estimate
from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.engines.partial import Partial
from fllm_export.planning.estimate import Plan, Question
from fllm_export.planning.machine import Machine
from fllm_export.planning.source import Shape
from fllm_export.planning.table_probe import ScanRates, WriteRates, halvings
from fllm_export.table.footprint import Footprint
from fllm_export.table.layout import TableLayout
from fllm_export.table.options import TableOptions

MACHINE = Machine(threads=2, memory_read=2e9, disk_read=1e8, probe_bytes=1, load=0.5, processors=2)
WRITE = WriteRates(
    encode=1e-6, publish=1e-9, shard=0.5, cluster=3e-6, parting=0.25, bounds=4e-6, sketch=5e-6, sketch_once=7
)
SCAN = ScanRates(rows=1000, seconds={1: 1e-7, 8: 4e-7}, merge={1: 0.25, 8: 0.5})
PLENTY = 1 << 60


def plan(rows: int, dim: int, machines: int = 1, memory: int = PLENTY, disk: int = PLENTY, **options: object) -> Plan:
    shape, table = Shape(rows, dim), TableOptions(**options)  # type: ignore[arg-type]
    return Plan(Question(shape, table, machines, (1, 8), 100, "exact", memory, disk), MACHINE, WRITE, SCAN)


def test_bytes_of_all_machines_are_those_of_their_tables(tmp_path: Path) -> None:
    rows, machines = 1003, 4
    found = plan(rows, 20, machines, quant="int4", sketch="yes", cluster="yes")
    generator = np.random.default_rng(0)
    total = 0
    for number, count in enumerate((251, 251, 251, 250)):
        place = tmp_path / str(number)
        written = generator.standard_normal((count, 20), dtype=np.float32)
        UserTable.create(place, written, quant="int4", sketch="yes", cluster="yes")
        dims = TableLayout.load(place).sketch_dims
        # Random rows may have a sketch of fewer dimensions than the most that is counted.
        more = found.question.footprint(found.question.options, machines, largest=count == 251).disk
        less = Footprint.of(found.question.options, count, 20, sketch_dims=dims).disk
        total += sum(path.stat().st_size for path in place.iterdir()) + more - less
    assert found.bytes["disk of all machines"].value == total
    parts = [size for name, size in found.bytes.items() if name.split()[0] not in ("disk", "memory", "network")]
    assert found.bytes["disk"].value == sum(part.value for part in parts)


def test_times_are_the_rates_times_the_counts() -> None:
    found = plan(8_000_000, 64, machines=2, quant="int8")
    footprint = found.footprint
    assert footprint.clustered
    assert len(footprint.shard_rows) == 2
    seconds = {name: quantity.value for name, quantity in found.seconds.items()}
    splits = sum(count * halvings(count, footprint.tile_rows) for count in footprint.shard_rows)
    assert seconds["encode"] == pytest.approx(4)
    assert seconds["cluster"] == pytest.approx(3e-6 * splits + 16 + 2 * 0.25)
    assert seconds["sketch"] == pytest.approx(20 + 7)
    assert seconds["write, sync and hash"] == pytest.approx(footprint.disk * 1e-9 + 1)
    stages = ("encode", "cluster", "sketch", "write, sync and hash")
    assert seconds["build"] == pytest.approx(sum(seconds[name] for name in stages))
    one, eight = found.scans
    assert one.call.value == pytest.approx(4_000_000 * 1e-7 + 0.25)
    assert one.bound == "arithmetic"
    assert eight.item.value == pytest.approx((1.6 + 0.5) / 8)
    assert eight.throughput.value == pytest.approx(8 / 2.1)


def test_a_table_beyond_memory_is_searched_at_the_speed_of_the_disk() -> None:
    fits, cramped = (plan(1_000_000, 64, memory=memory) for memory in (PLENTY, 1 << 20))
    assert fits.scans[0].bound == "arithmetic"
    assert cramped.scans[0].bound == "disk"
    assert cramped.scans[0].call.value == pytest.approx(cramped.footprint.read / 1e8 + 0.25)
    quick = replace(cramped, machine=replace(MACHINE, disk_read=1e12))
    assert quick.scans[0].bound == "arithmetic"


def test_the_network_carries_what_is_merged() -> None:
    found = plan(10_000, 64, machines=3)
    batch, k = 1, 100
    ids, scores = np.zeros((batch, k), np.int64), np.zeros((batch, k), np.float32)
    part = Partial(ids, scores, scores, np.zeros(batch), np.ones(batch))
    back = sum(array.nbytes for array in (part.ids, part.keys, part.scores, part.m, part.l))
    assert found.bytes["network per item"].value == 3 * (back + np.zeros(64, np.float32).nbytes)
    refined = plan(10_000, 64, machines=3, quant="int2", refine="int8").bytes["network per item"]
    assert refined.value == 3 * (4 * 64 + 4 * k * (8 + 4 + 4 + 4) + 16)
    assert "400 candidates x 20 bytes" in refined.arithmetic


@pytest.mark.parametrize(("memory", "disk"), [(1_500_000_000, PLENTY), (PLENTY, 700_000_000)])
def test_what_is_said_to_be_enough_is_enough_and_no_less_is(memory: int, disk: int) -> None:
    found = plan(20_000_000, 256, memory=memory, disk=disk, cluster="no", sketch="yes")
    assert found.shortages
    for short in found.shortages:
        assert short.needed > short.available
        enough = int(next(text.split()[1] for text in short.remedies if text.startswith("--machines")))

        def missing(machines: int, what: str = short.what, **options: object) -> bool:
            tried = plan(20_000_000, 256, machines, memory, disk, cluster="no", **{"sketch": "yes", **options})
            return any(one.what == what for one in tried.shortages)

        assert not missing(enough)
        assert missing(enough - 1)
        for remedy in short.remedies:
            names, values = remedy.split()[::2], remedy.split()[1::2]
            if names != ["--machines"]:
                changed = {name.removeprefix("--"): value for name, value in zip(names, values, strict=True)}
                assert not missing(1, **changed)


def test_no_more_machines_are_advised_than_there_are_rows() -> None:
    found = plan(300, 64, disk=50_000, cluster="no", sketch="no")
    for short in found.shortages:
        assert short.what == "disk"
        for remedy in short.remedies:
            if remedy.startswith("--machines"):
                plan(300, 64, int(remedy.split()[1]), disk=50_000, cluster="no", sketch="no")
    few = plan(3, 64, disk=1, cluster="no", sketch="no").shortages[0]
    assert not [remedy for remedy in few.remedies if remedy.startswith("--machines")]


def test_nothing_helps_where_a_process_does_not_fit() -> None:
    assert plan(1000, 8, memory=1 << 20).shortages[0].remedies == ()


@pytest.mark.parametrize(("load", "busy"), [(0.9, False), (1.1, True)])
def test_a_busy_machine_is_told(load: float, busy: bool) -> None:
    assert replace(MACHINE, load=load).busy is busy


def test_a_probe_measures_and_leaves_nothing(tmp_path: Path) -> None:
    found = estimate(3000, 64, batches=(1, 4), sketch="yes", cluster="yes", folder=tmp_path, threads=1)
    assert not list(tmp_path.iterdir())
    rates = found.write
    assert min(rates.encode, rates.shard, rates.bounds, rates.sketch, rates.sketch_once) > 0
    assert found.scan.rows == 3000
    assert all(scan.call.value > 0 for scan in found.scans)
    assert found.machine.memory_read > found.machine.disk_read / 100 > 0
    document = found.to_dict()
    assert document["fits"]
    assert document["bytes"]["disk"]["value"] == found.footprint.disk


def test_the_shape_of_a_bundle_a_table_and_a_checkpoint(
    kernel_bundle: Bundle, tiny_checkpoint: object, tmp_path: Path
) -> None:
    checkpoint: Checkpoint = tiny_checkpoint("bert", users=70, dim=16)  # type: ignore[operator]
    checkpoint.save(tmp_path / "checkpoint")
    bundle, table, trained = (
        Shape.of(path) for path in (kernel_bundle.path, kernel_bundle.path / "users", tmp_path / "checkpoint")
    )
    assert (bundle.rows, bundle.dim) == (table.rows, table.dim) == (400, 16)
    assert (trained.rows, trained.dim, trained.bias) == (70, 16, False)
    assert bundle.encoder_bytes == (kernel_bundle.path / "encoder" / "model.onnx").stat().st_size
    assert table.encoder_bytes == 0 < trained.encoder_bytes
    found = estimate(source=kernel_bundle.path, rows=4000, batches=(), folder=tmp_path)
    assert (found.question.shape.rows, found.question.shape.dim) == (4000, 16)
    assert found.bytes["encoder"].value == bundle.encoder_bytes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 10}, "rows is 10 and dim is None; expected both, or a bundle"),
        ({"rows": 10, "dim": 0}, "dim is 0"),
        ({"rows": 10, "dim": 4, "machines": 11}, "10 rows are shared by 11 machines"),
        ({"rows": 10**30, "dim": 4}, "rows on a machine are .* shards .* larger shards"),
        ({"rows": 10, "dim": 4, "batches": (0,)}, "batch is 0"),
        ({"rows": 10, "dim": 4, "log_probs": "some"}, "log_probs is 'some'"),
        ({"rows": 10, "dim": 4, "memory_bytes": 0}, "memory_bytes is 0"),
        ({"source": "."}, "is not a bundle, a user table or a checkpoint"),
    ],
)
def test_invalid_arguments_are_named(
    arguments: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        estimate(**arguments)


def test_what_is_one_is_told_in_the_singular() -> None:
    one, several = plan(1, 64), plan(8_000_000, 64)
    assert one.bytes["ids"].arithmetic == "1 row x 8 bytes"
    assert one.bytes["headers and padding"].arithmetic.startswith("1 file, ")
    assert several.bytes["ids"].arithmetic == "8,000,000 rows x 8 bytes"
    assert several.bytes["headers and padding"].arithmetic.startswith("4 files, ")
    assert any("+ 1 shard x" in each.arithmetic for each in one.seconds.values())
    assert [scan.item.arithmetic.split(" / ")[1] for scan in one.scans] == ["1 item", "8 items"]
