"""Text-to-judgment beside text-to-distribution: time per item on the same machine, and how both rank users.

    python -m benchmarks.judgment wordings DATASET WORK CHECKPOINT... [--items 15]
    python -m benchmarks.judgment rank     DATASET WORK CHECKPOINT... [--items 30]
    python -m benchmarks.judgment time     DATASET WORK CHECKPOINT... [--items 3]

Text-to-judgment filters all users to --candidates by two towers, and asks a decoder one yes/no question per candidate.
The item tower is the frozen encoder of the first CHECKPOINT, a user's tower is the direction of the sum of the vectors
of the user's training items. A question holds the titles of the user that are nearest to the new item. The decoder is
--decoder: `smollm2` (SmolLM2-135M-Instruct) or a directory of Transformers. It is not trained on these questions.
Text-to-distribution is every CHECKPOINT, in float32: text, encoder, probabilities among all users, best 20.

  wordings  AUC of each wording on items of `cold_val`: those that liked the item against users drawn at random
  rank      precision and AUC on items of `cold_test`, with 95 % intervals by the bootstrap over items
  time      seconds per item of both ways, one right after the other, medians over items

WORK keeps the encoder's vectors of all items (vectors.npy) and every measurement (measured.jsonl), and a run that was
interrupted continues. Prints a Markdown table, with --json the same as one JSON document.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.judgment.journal import Journal
from benchmarks.judgment.judge import Judge
from benchmarks.judgment.report import markdown, ranked, ranking_rows, time_rows, wording_rows
from benchmarks.judgment.study import Study, open_models
from benchmarks.judgment.towers import Towers, text_vectors
from benchmarks.judgment.wording import WORDINGS
from benchmarks.native import machine
from fllm_export.cli.output import Output
from fllm_export.evaluation.dataset import Dataset
from fllm_export.training.encoders import choose_encoder

ITEMS = {"wordings": 15, "rank": 30, "time": 3}


def main() -> None:
    """Measure what is not measured yet, and print."""
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    study = opened(options)
    count = options.items or ITEMS[options.part]
    wording = WORDINGS[options.wording]
    data: Any
    if options.part == "wordings":
        data = wording_rows(study.rank("cold_val", count, WORDINGS.values(), options.histories[0], 0, options.others))
        cells = [[f"{each:.3f}" if isinstance(each, float) else str(each) for each in row.values()] for row in data]
        rows = [list(data[0]), *cells]
    elif options.part == "rank":
        history = options.histories[0]
        records = study.rank("cold_test", count, [wording], history, options.candidates, options.others)
        data = ranked(records, study.towers.dataset, study.models)
        rows = ranking_rows(data)
    else:
        data = study.time("cold_test", count, wording, options.histories, options.candidates)
        rows = time_rows(data)
    if options.json:
        print(json.dumps({"part": options.part, "machine": machine.describe(), "rows": rows, "data": data}))
    else:
        print(markdown(rows))


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("part", choices=ITEMS)
    found.add_argument("dataset", type=Path)
    found.add_argument("work", type=Path)
    found.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT")
    found.add_argument("--decoder", default="smollm2")
    found.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of the decoder")
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--items", type=int)
    found.add_argument("--wording", choices=WORDINGS, default="examples")
    found.add_argument(
        "--histories",
        type=int,
        nargs="+",
        default=[5, 10, 20],
        help="titles per user; the first, or each for time",
    )
    found.add_argument("--candidates", type=int, default=20, help="users per item that the filter leaves")
    found.add_argument("--others", type=int, default=3, help="likers, and drawn users, that are judged beside them")
    found.add_argument("--json", action="store_true")
    return found


def opened(options: argparse.Namespace) -> Study:
    """Open the data, the decoder and the models."""
    progress = Output().progress
    options.work.mkdir(parents=True, exist_ok=True)
    dataset = Dataset.load(options.dataset)
    models = open_models(options.checkpoints)
    vectors = text_vectors(dataset, next(iter(models.values())), options.work / "vectors.npy", progress)
    judge = Judge.load(choose_encoder(options.decoder, options.work).path, options.precision)
    journal = Journal(options.work / "measured.jsonl")
    return Study(Towers.of(dataset, vectors), judge, options.precision, models, journal, progress)


if __name__ == "__main__":
    main()
