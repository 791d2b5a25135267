"""Simple methods that a trained model must beat, fitted on the training pairs alone: one table of them.

Each is a module of this package with one class; to add one, write its module and name it in :data:`BASELINES`.
"""

from fllm_export.evaluation.baselines.baseline import Baseline, ColdItems, Fitted, Params
from fllm_export.evaluation.baselines.centroid import UserCentroid
from fllm_export.evaluation.baselines.chance import RandomUsers
from fllm_export.evaluation.baselines.held import HeldItems
from fllm_export.evaluation.baselines.kernel_ridge import KernelRidge
from fllm_export.evaluation.baselines.known import Known
from fllm_export.evaluation.baselines.popularity import MostActive
from fllm_export.evaluation.baselines.text_knn import TextKnn

BASELINES: tuple[Baseline, ...] = (RandomUsers(), MostActive(), UserCentroid(), TextKnn(), KernelRidge())
"""From the weakest to the strongest on most data."""

__all__ = ["BASELINES", "Baseline", "ColdItems", "Fitted", "HeldItems", "Known", "Params"]
