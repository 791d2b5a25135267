"""The JSON of requests and answers as OpenAPI describes it; :mod:`fllm_export.server.request` checks requests."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fllm_export.server.options import ServerOptions

_UserId = Annotated[int, Field(ge=0, lt=1 << 63)]
_Seed = Annotated[int, Field(ge=0, lt=1 << 64)]
_TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]


class TopkRequest(BaseModel):
    """One of `text`, `texts`, `token_ids` and `item_vectors`, and how to search."""

    model_config = ConfigDict(extra="forbid", title="TopkRequest")

    text: str = Field("", description="One item text.")
    texts: list[str] = Field([], description="Item texts.", min_length=1)
    token_ids: list[list[_TokenId]] = Field([], description="Token ids per item, special tokens included.")
    item_vectors: list[list[float]] = Field([], description="Item vectors [items, dim], finite in float32.")
    k: int = Field(100, ge=1, description="Users per item.")
    mode: Literal["topk", "sample"] = Field(
        "topk", description="The best users, or users drawn without replacement from the distribution."
    )
    seed: _Seed | list[_Seed] = Field(0, description="For `sample`: one for all items, or one per item.")
    budget_ms: float | None = Field(None, gt=0, description="Milliseconds from the beginning of the request.")
    exact: bool | None = Field(None, description="Whether the users must be provably the best.")
    log_probs: Literal["exact", "estimate", "none", "certified"] | None = Field(
        None, description="Where probabilities come from."
    )
    refine: int | None = Field(
        None, ge=0, description="Candidates per user wanted that refinement rows rank again; 0 ranks none again."
    )
    allow: list[_UserId] | None = Field(None, description="Only these users can be returned.")
    deny: list[_UserId] | None = Field(None, description="These users cannot be returned.")


class User(BaseModel):
    """A user of an answer."""

    user_id: int
    score: float
    log_prob: float | None


class Item(BaseModel):
    """The answer for one item."""

    users: list[User] = Field(description="Best first.")
    logsumexp: float | None = Field(description="Of the scores of all rows scored; null where it was not requested.")
    coverage: float = Field(description="Rows scored divided by rows in the table.")
    complete: bool = Field(description="Whether an unlimited budget gives the same answer.")
    exact: bool = Field(description="Whether these are provably the best users of the table.")
    log_probs_exact: bool = Field(description="Whether every row was scored.")
    log_prob_error: float | None = Field(description="The most by which a log-probability is off; null: not known.")
    log_probs_certified: bool = Field(description="Whether that is proven; otherwise it holds with 95% probability.")


class TopkAnswer(BaseModel):
    """The answer to a request."""

    items: list[Item] = Field(description="One per item, in the order of the request.")
    generation: int = Field(description="Version number of the table that answered.")
    timings_ms: dict[str, float] = Field(description="Milliseconds by stage.")


class ReloadRequest(BaseModel):
    """What to open; an empty body opens the same path again."""

    model_config = ConfigDict(extra="forbid", title="ReloadRequest")

    path: str | None = Field(None, description="Another bundle or user table on the server.")


class Generation(BaseModel):
    """What is served now."""

    generation: int


class Alive(BaseModel):
    """The process answers."""

    alive: bool


class Ready(BaseModel):
    """Whether requests are answered."""

    ready: bool
    generation: int


class Problem(BaseModel):
    """What went wrong."""

    kind: str = Field(description="One word for programs.")
    message: str = Field(description="The next three in one text.")
    found: str
    expected: str | None
    fix: str | None


class Failure(BaseModel):
    """A request that was not answered."""

    error: Problem


def request_body(model: type[BaseModel], *, required: bool) -> dict[str, Any]:
    """Return the part ``requestBody`` of an operation."""
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": _schema(model)}}}}


def topk_body(options: ServerOptions) -> dict[str, Any]:
    """Return the part ``requestBody`` of ``/v1/topk``, with the limits of this server."""
    body = request_body(TopkRequest, required=True)
    schema = body["requestBody"]["content"]["application/json"]["schema"]
    for name in ("texts", "token_ids", "item_vectors"):
        schema["properties"][name] |= {"minItems": 1, "maxItems": options.max_items}
    schema["properties"]["k"]["maximum"] = options.max_answer_users
    schema["oneOf"] = [{"required": [name]} for name in ("text", "texts", "token_ids", "item_vectors")]
    return body


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    for part in schema["properties"].values():
        # An absent field is not the same as one with an invalid default, such as an empty list of texts.
        if part.get("default") in ("", []):
            del part["default"]
    return schema


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the part ``responses`` of an operation for some statuses of failures."""
    return {status: {"model": Failure, "description": _MEANING[status]} for status in statuses}


_MEANING = {
    400: "The request is invalid.",
    401: "The request has no valid token.",
    403: "The request is not allowed.",
    408: "The client was too slow.",
    413: "The body is too large.",
    415: "The body is compressed.",
    429: "Too many requests are waiting. The header Retry-After says when to repeat it.",
    500: "The server, its bundle or its table is at fault.",
    503: "The server cannot answer now. The header Retry-After says when to repeat it.",
}
