"""What ``evaluate`` measured as a page to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fllm_export import page
from fllm_export.charts import legend
from fllm_export.evaluation.evaluation import Evaluation
from fllm_export.evaluation.examples import Example
from fllm_export.evaluation.measurement import Measurement
from fllm_export.line_charts import Axis, Line, lines

_TEXT_CHARACTERS = 320
_SIMILAR_CHARACTERS = 110
_BY_GROUP = {
    "popularity": "By popularity of the item",
    "text_length": "By length of the text",
}


def quality_page(title: str, setting: Mapping[str, str], evaluation: Evaluation, shown: Sequence[Example]) -> str:
    """Return a page, as HTML.

    Args:
        title: what was measured, as plain text.
        setting: facts that the figures depend on, by name.
        evaluation: models and baselines.
        shown: cold items to look at.
    """
    sections = [
        f"<p><strong>{_summary(evaluation)}</strong></p>",
        page.section(f"Users of each item, first {evaluation.k}", _users_table(evaluation)),
        page.section(f"Items of each user, first {evaluation.k}", *_items_table(evaluation)),
        page.section("Precision and recall by length of the list", *_curves(evaluation)),
        *(page.section(heading, *_groups(evaluation, name)) for name, heading in _BY_GROUP.items()),
    ]
    if any(model.likelihood is not None for model in evaluation.models):
        sections.append(page.section("Probabilities", *_reliability(evaluation)))
    sections.append(page.section("Examples", *_examples(evaluation, shown)))
    sections.append(page.section("What was measured", page.facts({**setting, **_chosen(evaluation)})))
    return page.page(title, sections)


def _summary(evaluation: Evaluation) -> str:
    first, k = evaluation.models[0], evaluation.k
    share = f"{100 * first.users_of_items.recall:.1f}\u00a0%"
    told = f"The first {k} users that the model gives for a new item hold, on average, {share} of those who liked it"
    if not evaluation.baselines:
        return f"{told}."
    best = max(evaluation.baselines, key=lambda each: each.users_of_items.recall)
    return f"{told}. The best baseline, {best.name}, reaches {100 * best.users_of_items.recall:.1f}\u00a0%."


def _users_table(evaluation: Evaluation) -> str:
    k = evaluation.k
    header = ["method", f"precision@{k}", f"recall@{k}", f"NDCG@{k}"]
    rows = [
        [each.users_of_items.precision, each.users_of_items.recall, each.users_of_items.ndcg]
        for each in evaluation.methods()
    ]
    return _figures(header, [each.name for each in evaluation.methods()], rows)


def _items_table(evaluation: Evaluation) -> list[str]:
    header = ["method"]
    for name in evaluation.items_of_users:
        header += [f"{name} recall", f"{name} NDCG"]
    rows = [
        [figure for ranking in each.items_of_users.values() for figure in (ranking.recall, ranking.ndcg)]
        for each in evaluation.methods()
    ]
    told = (
        f"The {evaluation.candidates:,} cold items are ranked for each user. A masks the items that the user was "
        "trained on, B every other item that the user is known to like."
    )
    return [_figures(header, [each.name for each in evaluation.methods()], rows), page.note(told)]


def _figures(header: Sequence[str], names: Sequence[str], rows: Sequence[Sequence[float]]) -> str:
    """Return a table of figures in which the largest of each column is marked."""
    largest = [max(column) for column in zip(*rows, strict=True)]
    cells = [[name, *(f"{figure:.4f}" for figure in row)] for name, row in zip(names, rows, strict=True)]
    marks = [[False, *(figure == best for figure, best in zip(row, largest, strict=True))] for row in rows]
    return page.table(header, cells, marks, kind="best")


def _curves(evaluation: Evaluation) -> list[str]:
    methods = evaluation.methods()
    curves = [each.hits.curves() for each in methods]
    depth = len(curves[0][0])
    x = Axis("users per item, K", 1, depth, {k: f"{k}" for k in sorted({1, *range(20, depth, 20), depth})})
    parts = []
    for number, name in enumerate(("precision", "recall")):
        values = [curve[number] for curve in curves]
        y = Axis.from_zero(f"{name} at K", max(max(value) for value in values))
        drawn = _drawn(evaluation, [list(enumerate(value, 1)) for value in values], marked=False)
        parts.append(lines(f"{name} by K", drawn, x, y))
    return [*parts, _legend(methods)]


def _groups(evaluation: Evaluation, name: str) -> list[str]:
    group, methods = evaluation.groups[name], evaluation.methods()
    means = [[part["recall"] for part in evaluation.by_group(each)[name]] for each in methods]
    y = Axis.from_zero(f"recall@{evaluation.k}", max(max(mean) for mean in means))
    drawn = _drawn(evaluation, [list(enumerate(mean)) for mean in means], marked=True)
    told = "The cold items in five groups of about equal size, fewer where many items have the same value."
    # A range in two lines is narrow enough for five of them on a telephone.
    x = Axis.named(group.title, [label.replace(" to ", " to\n") for label in group.labels])
    chart = lines(f"recall by {group.title}", drawn, x, y)
    return [chart, _legend(methods), page.note(told)]


def _drawn(evaluation: Evaluation, points: Sequence[Sequence[tuple[float, float]]], *, marked: bool) -> list[Line]:
    """Return a line per method: models thick and over the baselines, all but the first with gaps."""
    models = len(evaluation.models)
    drawn = [
        Line(each, colour, strong=colour < models, dashed=0 < colour < models, marked=marked)
        for colour, each in enumerate(points)
    ]
    return drawn[models:] + drawn[:models]


def _reliability(evaluation: Evaluation) -> list[str]:
    able = [(number, each, each.likelihood) for number, each in enumerate(evaluation.models)]
    measured = [(number, each, fit) for number, each, fit in able if fit is not None]
    bins = [part for _, _, fit in measured for part in fit.bins]
    smallest = min(part.predicted for part in bins if part.predicted > 0)
    # A bin in which nobody was right lies below every axis of ratios; it is drawn on the lower edge.
    values = [max(value, smallest / 10) for part in bins for value in (part.predicted, part.observed)]
    x = Axis.decades("predicted probability of a user", values)
    y = Axis.decades("observed share", values)
    drawn = [Line([(x.low, x.low), (x.high, x.high)], None)]
    for number, _, fit in measured:
        points = [(part.predicted, max(part.observed, y.low)) for part in fit.bins]
        drawn.append(Line(points, number, strong=True, dashed=number > 0, marked=True))
    rows = [[each.name, f"{fit.per_pair:.3f}", f"{fit.calibration_error:.3f}"] for _, each, fit in measured]
    header = ["model", "negative log-likelihood per pair (nats)", "calibration error"]
    told = (
        f"Equal probabilities for all users give {measured[0][2].uniform:.3f} nats per pair. Each dot is a tenth of "
        "the predicted probability; on the dotted line it is as large as what was observed, above it too small. The "
        "calibration error is the part of the probability that lies in the wrong tenth, from 0 to 1. Scores of "
        "baselines are not probabilities."
    )
    chart = lines("predicted and observed probability", drawn, x, y)
    return [page.table(header, rows, [[False] * 3] * len(rows)), chart, _legend(evaluation.models), page.note(told)]


def _examples(evaluation: Evaluation, shown: Sequence[Example]) -> list[str]:
    name = evaluation.models[0].name
    told = (
        f"Cold items with many users, from the best to the worst recall@{evaluation.k} of {name}. The users are its "
        f"first {evaluation.k}; a tick marks those who liked the item. Below stand, for two of these, the items of "
        "their training data that resemble the new one most, with the cosine of the vectors."
    )
    return [page.note(told), *(page.entry(f"Item {each.item}", *_example(each)) for each in shown)]


def _example(example: Example) -> list[str]:
    found = f"{sum(example.right)} of its {example.liked_by:,} users are among the first {len(example.users)}:"
    parts = [
        page.quote(_short(example.text, _TEXT_CHARACTERS)),
        page.note(found),
        page.labels([str(user) for user in example.users], example.right),
    ]
    for reason in example.reasons:
        similar = [f"{cosine:.2f}  {_short(text, _SIMILAR_CHARACTERS)}" for text, cosine in reason.items]
        parts.append(page.listed(f"User {reason.user} also liked:", similar))
    return parts


def _chosen(evaluation: Evaluation) -> dict[str, str]:
    """Return the hyper-parameters of the baselines that have some."""
    return {
        f"{each.name}, chosen on cold_val": ", ".join(f"{key} {value:g}" for key, value in each.params.items())
        for each in evaluation.baselines
        if each.params
    }


def _legend(methods: Sequence[Measurement]) -> str:
    return legend([each.name for each in methods])


def _short(text: str, most: int) -> str:
    words = " ".join(text.split())
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"
