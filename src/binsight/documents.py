"""The JSON of records, as the command line prints it, the API sends it and the client reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from binsight.records import Answer, Count, Item, Match, Metadata, StoreInfo


def match_json(match: Match) -> Metadata:
    """One of `matches`."""
    return {"id": match.item.id, "score": round(match.score, 6), "metadata": match.item.metadata}


def count_json(count: Count) -> Metadata:
    """A count; probabilities to six digits."""
    return {
        "value": count.value,
        "expected": round(count.expected, 6),
        "probabilities": [round(probability, 6) for probability in count.probabilities],
        "more": round(count.more, 6),
        "low": count.low,
        "high": count.high,
    }


def answer_json(answer: Answer, took_ms: Mapping[str, float]) -> Metadata:
    """What `search --json` says of an answer, without the query. took_ms: of each stage."""
    return {
        "count": None if answer.count is None else count_json(answer.count),
        "matches": [match_json(match) for match in answer.matches],
        "took_ms": {stage: round(value, 3) for stage, value in took_ms.items()},
    }


def info_json(info: StoreInfo) -> Metadata:
    """What `store info --json` prints: the store's own details beside what all stores tell."""
    document: Metadata = asdict(info)
    detail: Metadata = document.pop("detail")
    return {"items": document.pop("items")} | document | detail


def match_from(document: Mapping[str, Any]) -> Match:
    """The match that `match_json` told. KeyError or TypeError for another document, as the others here."""
    return Match(Item(document["id"], document["metadata"]), float(document["score"]))


def count_from(document: Mapping[str, Any]) -> Count:
    """The count that `count_json` told.

    >>> told = Count(1, 0.8, (0.2, 0.8), 0.0, 1, 1)
    >>> count_from(count_json(told)) == told
    True
    """
    values = {field.name: document[field.name] for field in fields(Count)}
    return Count(**values | {"probabilities": tuple(document["probabilities"])})


def answer_from(document: Mapping[str, Any]) -> Answer:
    """The answer that `answer_json` told; labels where there are any."""
    count, labels = document["count"], document.get("labels")
    return Answer(
        [match_from(match) for match in document["matches"]],
        None if count is None else count_from(count),
        None if labels is None else tuple((str(name), float(probability)) for name, probability in labels),
    )


def info_from(document: Mapping[str, Any]) -> StoreInfo:
    """The info that `info_json` told; what is not known to all stores becomes the detail."""
    known = {field.name for field in fields(StoreInfo)} - {"detail"}
    detail = {name: value for name, value in document.items() if name not in known}
    return StoreInfo(**{name: document[name] for name in known}, detail=detail)
