"""FilterLLM itself: stage 1, the user vocabulary by item-oriented BPR; stage 2, LoRA fine-tuning."""

from fllm_export.training.recipe import Recipe
from fllm_export.training.trainer import train

__all__ = ["Recipe", "train"]
