"""How good a ranking is: data sets, metrics, negatives, and the protocols on cold items."""

from fllm_export.evaluation.dataset import Dataset
from fllm_export.evaluation.evaluation import Evaluation, evaluate
from fllm_export.evaluation.ranker import open_ranker

__all__ = ["Dataset", "Evaluation", "evaluate", "open_ranker"]
