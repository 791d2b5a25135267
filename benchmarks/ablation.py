"""What each stage of training adds, over several seeds: each stage on cold_val, and the kept model on cold_test.

    python benchmarks/ablation.py WORK DATASET... [--seeds 5] [--encoder minilm] [--epochs 3] [...]
    python benchmarks/ablation.py WORK --table

Every hyper-parameter of the closed form's recipe is an option. For each data set and each seed (42, 43, ...) a model is
trained in WORK/<name of the data set>/<seed> and measured on cold_test, without baselines. The measurement is a line of
WORK/results.jsonl. The checkpoint is then deleted, unless --keep is set. A seed that has its line is not trained again,
and one that was interrupted continues after its last complete epoch. Each seed has a process of its own, so that its
memory is free before the next one begins. At the end, and with --table alone, the script prints Markdown tables of all
lines: mean and standard deviation over the seeds.

The candidates of a run are those that `train` reports. LoRA is a candidate only where it ranks better on cold_val than
the frozen encoder, so that its row can be of fewer seeds. Differences are those of the same seed to the closed form.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from fllm_export.cli.output import Output
from fllm_export.evaluation.dataset import Dataset
from fllm_export.evaluation.evaluation import evaluate
from fllm_export.files import publish_text
from fllm_export.training.recipe import ClosedFormRecipe
from fllm_export.training.trainer import train
from fllm_export.training.training_report import FILE_NAME as REPORT_FILE

K = 20
FIRST_SEED = 42
METRICS = ("ndcg", "precision", "recall")
CANDIDATES = ("closed form", "head", "lora", "lora + head")
RESULTS = "results.jsonl"
KINDS = {"int": int, "int | None": int, "float": float}

Record = dict[str, Any]


def main() -> None:
    """Measure what is not measured yet, and print the tables."""
    options = parser().parse_args()
    given = {field.name: getattr(options, field.name) for field in fields(ClosedFormRecipe) if field.name != "seed"}
    given = {name: value for name, value in given.items() if value is not None}
    for path in () if options.table else options.datasets:
        for seed in range(FIRST_SEED, FIRST_SEED + options.seeds):
            recipe = ClosedFormRecipe(seed=seed, **given)
            out = options.work / path.resolve().name / str(seed)
            alone(run_seed, path, out, recipe, options.encoder, options.work / RESULTS, options.keep)
    print(tables(read(options.work / RESULTS)))


def parser() -> argparse.ArgumentParser:
    """Return the options: the script's own, and one for each hyper-parameter."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("work", type=Path)
    found.add_argument("datasets", type=Path, nargs="*", metavar="DATASET")
    found.add_argument("--seeds", type=int, default=5, help="how many seeds")
    found.add_argument("--encoder", default="minilm")
    found.add_argument("--keep", action="store_true", help="keep the checkpoints")
    found.add_argument("--table", action="store_true", help="only print the tables")
    for field in fields(ClosedFormRecipe):
        if field.name != "seed":
            found.add_argument(f"--{field.name.replace('_', '-')}", type=KINDS.get(str(field.type), str))
    return found


def read(results: Path) -> list[Record]:
    """Return the records measured so far."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def alone(call: Callable[..., None], *arguments: Any) -> None:
    """Call a function in a process of its own, and end as it ends if it fails."""
    process = multiprocessing.get_context("spawn").Process(target=call, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"a seed ended with the exit code {process.exitcode}")


def run_seed(path: Path, out: Path, recipe: ClosedFormRecipe, encoder: str, results: Path, keep: bool) -> None:
    """Train, measure and record one seed of the data set in a directory."""
    run_once(Dataset.load(path), out, recipe, encoder, results, keep=keep)


def run_once(dataset: Dataset, out: Path, recipe: ClosedFormRecipe, encoder: str, results: Path, *, keep: bool) -> None:
    """Train, measure and record one seed, unless its record is there."""
    identity = {"dataset_sha256": dataset.sha256, "encoder": encoder, "recipe": recipe.to_json()}
    records = read(results)
    if any(identity == {key: record[key] for key in identity} for record in records):
        return
    report = train_once(dataset, out, recipe, encoder)
    measured = evaluate(out, dataset, "cold_test", K, Output().progress, baselines=False).models[0]
    record = {
        **identity,
        "name": out.parent.name,
        "seed": recipe.seed,
        "findings": report["findings"],
        "epochs": report["epochs"],
        "kept_epoch": report["kept_epoch"],
        "seconds": report["seconds"],
        "cold_test": figures(measured.to_json()),
    }
    # The whole file is replaced, so that an interruption leaves no half of a line.
    publish_text(results, "".join(f"{json.dumps(each)}\n" for each in [*records, record]))
    if not keep:
        shutil.rmtree(out)


def train_once(dataset: Dataset, out: Path, recipe: ClosedFormRecipe, encoder: str) -> Record:
    """Return the report of a run: of the one that has ended in ``out``, or of one that begins or continues now."""
    path = out / REPORT_FILE
    if not path.exists():
        # The report is written last: a checkpoint without one was interrupted, and its run is still beside it.
        shutil.rmtree(out, ignore_errors=True)
        train(dataset, out, recipe, encoder=encoder, progress=Output().progress)
    report: Record = json.loads(path.read_text())
    if (report["dataset_sha256"], report["recipe"]) != (dataset.sha256, recipe.to_json()):
        sys.exit(f"{out} holds a checkpoint of another recipe or data set. Delete it, or choose another WORK")
    return report


def figures(measured: Record) -> dict[str, float]:
    """Return the figures of the kept model by the names that tables show."""
    users, likelihood = measured["users_of_items"], measured["likelihood"]
    found = {f"{metric}@{K}": users[metric] for metric in METRICS}
    for evaluator, ranking in measured["items_of_users"].items():
        found |= {f"{evaluator} {metric}@{K}": ranking[metric] for metric in ("recall", "ndcg")}
    return found | {"nll": likelihood["per_pair"], "calibration error": likelihood["calibration_error"]}


def tables(records: Iterable[Record]) -> str:
    """Return the Markdown tables of all groups of records that differ in nothing but the seed."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        recipe = {name: value for name, value in record["recipe"].items() if name != "seed"}
        key = json.dumps([record["name"], record["dataset_sha256"], record["encoder"], recipe], sort_keys=True)
        groups.setdefault(key, []).append(record)
    return "\n\n".join(group_tables(group) for group in groups.values())


def group_tables(group: Sequence[Record]) -> str:
    """Return a line that says what was trained, the table of candidates and that of the kept model."""
    first, recipe = group[0], group[0]["recipe"]
    changed = {
        field.name: recipe.get(field.name)
        for field in fields(ClosedFormRecipe)
        if field.name != "seed" and recipe.get(field.name) != field.default
    }
    told = "".join(f", {name} {value}" for name, value in changed.items())
    seeds = ", ".join(str(record["seed"]) for record in group)
    parts = [f"**{first['name']}**, {first['encoder']}{told}; seeds {seeds}"]
    rows = [row for name in CANDIDATES if (row := candidate_row(name, group))]
    if rows:
        metrics = [f"{metric}@{K}" for metric in METRICS]
        parts.append(markdown(["cold_val", "seeds", *metrics, *(f"{each}, difference" for each in metrics)], rows))
    kept = [[name, spread([record["cold_test"][name] for record in group])] for name in first["cold_test"]]
    parts.append(markdown(["cold_test, kept model", "mean ± deviation"], kept))
    return "\n\n".join(parts)


def candidate_row(name: str, group: Sequence[Record]) -> list[str]:
    """Return a candidate's row: its figures, and its differences to the closed form of the same seed."""
    found = [record["findings"].get("candidates", {}) for record in group]
    found = [candidates for candidates in found if name in candidates]
    if not found:
        return []
    row = [name, str(len(found)), *(spread([each[name][metric] for each in found]) for metric in METRICS)]
    pairs = [each for each in found if CANDIDATES[0] in each]
    if name == CANDIDATES[0] or not pairs:
        return [*row, "", "", ""]
    return row + [
        spread([each[name][metric] - each[CANDIDATES[0]][metric] for each in pairs], "+.4f") for metric in METRICS
    ]


def spread(values: Sequence[float], form: str = ".4f") -> str:
    """Return mean and standard deviation (n - 1) of some values; of one value, the value."""
    mean = format(statistics.fmean(values), form)
    return f"{mean} ± {statistics.stdev(values):.4f}" if len(values) > 1 else mean


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


if __name__ == "__main__":
    main()
