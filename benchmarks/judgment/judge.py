"""A decoder that says how likely the answer yes is, for many prompts at once."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fllm_export.checkpoint.pretrained import quiet

YES = ("Yes", " Yes", "yes", " yes", "YES", " YES")
NO = ("No", " No", "no", " no", "NO", " NO")

_TOKENS_AT_ONCE = 1_024
_SPREAD = 1.5


class Judge:
    """P(yes) = the probability of all tokens that say yes, divided by that of all that say yes or no.

    The tokens that all prompts of a call begin with are computed once, and their keys and values serve every prompt.
    The tails run in batches of similar length, padded on the right: a causal model never looks at what comes later,
    so that neither changes an answer, apart from rounding.

    Args:
        model: a causal language model of Transformers.
        tokenizer: of the same model.
        yes: ids of the tokens that say yes.
        no: ids of the tokens that say no.

    Attributes:
        tokenizer: as given.
        tokens: tokens that went through the model since it was opened, padding included.
    """

    def __init__(self, model: Any, tokenizer: Any, yes: Sequence[int], no: Sequence[int]) -> None:
        self.tokenizer, self.tokens = tokenizer, 0
        self._base, self._yes = model.get_decoder().eval(), len(yes)
        head = model.get_output_embeddings().weight
        self._answers = head[torch.tensor([*yes, *no])].detach().float()

    @classmethod
    def load(cls, path: Path, precision: str) -> Judge:
        """Open a directory of Transformers; ``precision`` is float32 or bfloat16."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        with quiet():
            model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, precision), local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        return cls(model, tokenizer, single_tokens(tokenizer, YES), single_tokens(tokenizer, NO))

    @torch.inference_mode()
    def probabilities(self, prompts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return P(yes) of each prompt, float64 [n]."""
        ids = [self.tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
        shared = common_prefix(ids)
        prefix = self._prefix(ids[0][:shared])
        found = np.empty(len(ids))
        for rows in batches([len(each) - shared for each in ids]):
            found[rows] = self._answered([ids[row][shared:] for row in rows], prefix)
        return found

    def _prefix(self, ids: list[int]) -> Any:
        if not ids:
            return None
        self.tokens += len(ids)
        return self._base(input_ids=torch.tensor([ids]), use_cache=True).past_key_values

    def _answered(self, tails: list[list[int]], prefix: Any) -> npt.NDArray[np.float64]:
        longest = max(map(len, tails))
        padded = torch.tensor([tail + [tail[-1]] * (longest - len(tail)) for tail in tails])
        self.tokens += padded.numel()
        cache = copy.deepcopy(prefix)
        if cache is not None:
            cache.batch_repeat_interleave(len(tails))
        states = self._base(input_ids=padded, past_key_values=cache, use_cache=cache is not None).last_hidden_state
        last = states[torch.arange(len(tails)), torch.tensor([len(tail) - 1 for tail in tails])].float()
        logits = (last @ self._answers.T).double()
        yes, no = logits[:, : self._yes].logsumexp(1), logits[:, self._yes :].logsumexp(1)
        found: npt.NDArray[np.float64] = torch.sigmoid(yes - no).numpy()
        return found


def single_tokens(tokenizer: Any, words: Sequence[str]) -> list[int]:
    """Return the ids of those words that are one token.

    Raises:
        ValueError: none is.
    """
    coded = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    found = sorted({ids[0] for ids in coded if len(ids) == 1})
    if not found:
        raise ValueError(f"no spelling of {words[0]!r} is one token of this model. Use a model that has one")
    return found


def common_prefix(ids: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all sequences begin with, and leave each at least one; 0 for one sequence alone."""
    if len(ids) < 2:
        return 0
    most = min(map(len, ids)) - 1
    same = (all(each[at] == ids[0][at] for each in ids) for at in range(most))
    return next((at for at, equal in enumerate(same) if not equal), most)


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield places of sequences, shortest first.

    A batch of several has at most 1,024 tokens, padding included, and its longest sequence is at most half as long
    again as its shortest.
    """
    rows: list[int] = []
    for row in np.argsort(lengths, kind="stable").tolist():
        if rows and (lengths[row] * (len(rows) + 1) > _TOKENS_AT_ONCE or lengths[row] > _SPREAD * lengths[rows[0]]):
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows
