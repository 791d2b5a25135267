"""FilterLLM itself: user rows in closed form or by BPR, and LoRA that is trained for them."""

from fllm_export.training.recipe import ClosedFormRecipe, SoftmaxRecipe
from fllm_export.training.trainer import train

__all__ = ["ClosedFormRecipe", "SoftmaxRecipe", "train"]
