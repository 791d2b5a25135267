"""How a pair of a user and an item becomes a question that a decoder answers with yes or no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wording:
    """A question about a user, told as titles that the user has, and about a new title.

    Attributes:
        name: what options and tables call it.
        template: holds ``{history}``, one line per title, and ``{text}``, the new title.
        chat: whether the question is a turn of a chat, in the model's own chat template.
    """

    name: str
    template: str
    chat: bool

    def prompt(self, tokenizer: Any, titles: Sequence[str], text: str) -> str:
        """Return the whole text that the decoder continues, its special tokens included.

        Args:
            tokenizer: of Transformers; with a chat template where ``chat`` is set.
            titles: of the user.
            text: of the new item.
        """
        history = "\n".join(f"- {title}" for title in titles)
        question = self.template.format(history=history, text=text)
        if not self.chat:
            return question
        turns = [
            {"role": "system", "content": "You predict what a reader likes. Answer with Yes or No."},
            {"role": "user", "content": question},
        ]
        found: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return found


WORDINGS = {
    each.name: each
    for each in (
        Wording(
            "history first",
            "A reader has these papers:\n{history}\nNew paper: {text}\nWould this reader want the new paper?",
            chat=True,
        ),
        Wording(
            "item first",
            "New paper: {text}\nA reader has these papers:\n{history}\nWould this reader want the new paper?",
            chat=True,
        ),
        Wording(
            "plain",
            "Papers of a reader:\n{history}\n\n"
            'Question: Is the paper "{text}" about the same topic as these papers? Answer Yes or No.\nAnswer:',
            chat=False,
        ),
        Wording(
            "examples",
            "Papers of a reader:\n- Network motifs in yeast\n- Gene expression and regulation\n"
            'New paper: "Protein interaction networks"\nDoes the new paper fit this reader? Yes\n\n'
            "Papers of a reader:\n- Web search engines\n- Ranking of pages by their links\n"
            'New paper: "Molecular dynamics of membranes"\nDoes the new paper fit this reader? No\n\n'
            'Papers of a reader:\n{history}\nNew paper: "{text}"\nDoes the new paper fit this reader?',
            chat=False,
        ),
    )
}
"""Those that were compared on ``cold_val``, by name."""
