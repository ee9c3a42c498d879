"""What the screens say, in sentences and lines: pure functions of what was found."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from binsight.app.survey import Survey, value_text
from binsight.audit import disagreement, is_in_interval, is_likeliest
from binsight.counting import interval_in_words
from binsight.errors import BadImage, BinsightError, WrongUse
from binsight.origin import source_of
from binsight.records import Answer, Count, Item, Match, StoreInfo
from binsight.store.base import SOURCE_KEY

Rows = list[tuple[str, str]]

_LONGEST_CELL = 2000
_HIDDEN = ("path",)  # of a store's details: where the server keeps its files is no visitor's business
_FOLDERS = re.compile(r"(?<![\w:/.])/(?:[^\s/'\":;,]+/)+")  # of a path of this machine, before its last part


def caption(match: Match, survey: Survey) -> str:
    """What stands under a match: its score and id, its label, and where the record says how many there are and where.

    >>> caption(Match(Item("RAM-1", {"label": "ram"}), 0.934), Survey(0, 0))
    '0.93 · RAM-1 · ram'
    """
    metadata = match.item.metadata
    parts = [f"{match.score:.2f}", match.item.id]
    label = value_text(metadata.get("label"))
    if label and label != match.item.id:
        parts.append(label)
    for name in (survey.quantity_name, survey.place_name):
        value = value_text(metadata.get(name)) if name else None
        if value:
            parts.append(f"{name} {value}")
    return " · ".join(parts)


def said_of(answer: Answer, *, min_score: float, where: str | None, total: int) -> str:
    """What became of a search, in a sentence. answer: its matches before the cut-off."""
    near = [match for match in answer.matches if match.score >= min_score]
    if near:
        return f"The nearest item is {_ranking(near)}."
    if not total:
        return "The store holds no items yet, so nothing can be found in it."
    if not answer.matches:
        return f"No item of the store passes the filter {where}. Loosen it." if where else "The store gave no item."
    best = answer.matches[0]
    return (
        f"Nothing in the store is near enough: the nearest item, {best.item.id}, has a score of {best.score:.2f}, and the "
        f"cut-off is {min_score:.2f}. Lower the cut-off, crop the photo to the part, or take one from closer by."
    )


def said_of_like(matches: Sequence[Match], item_id: str) -> str:
    """What became of asking for more like an item. matches: those above the cut-off."""
    if not matches:
        return f"Nothing else in the store is near enough to {item_id}. Lower the cut-off, or loosen the filter."
    return f"Nearest to {item_id} is {_ranking(matches)}."


def _ranking(matches: Sequence[Match]) -> str:
    """The first match, and how far down the others reach: a store always has nearest items, whatever they look like."""
    told = f"{matches[0].item.id}, with a score of {matches[0].score:.2f}"
    if len(matches) == 1:
        return told
    return f"{told}; {len(matches) - 1} more, down to {matches[-1].score:.2f}"


def record_rows(item: Item) -> Rows:
    """An item's record as (field, value): the id, then its fields, then the file it came from, unless `path` says so."""
    rows = [("id", item.id)]
    rows += [(name, _cell(value)) for name, value in item.metadata.items() if name != SOURCE_KEY]
    uri = source_of(item).get("uri")
    return [*rows, ("picture", uri)] if isinstance(uri, str) and uri != item.metadata.get("path") else rows


def _cell(value: object) -> str:
    """A value as a visitor reads it: lists without brackets, what lies in them as `name value, name value`.

    >>> _cell([{"asin": "B0", "quantity": 1}, {"asin": "B1"}])
    'asin B0, quantity 1; asin B1'
    """
    told = _in_words(value)
    return told if len(told) <= _LONGEST_CELL else told[: _LONGEST_CELL - 1] + "…"


def _in_words(value: object, levels: int = 2) -> str:
    """levels: of lists and objects in one another; what lies deeper is shown as JSON."""
    if isinstance(value, dict) and levels:
        return ", ".join(f"{name} {_in_words(one, levels - 1)}" for name, one in value.items())
    if isinstance(value, list) and levels:
        between = "; " if any(isinstance(one, dict | list) for one in value) else ", "
        return between.join(_in_words(one, levels - 1) for one in value)
    text = value_text(value)
    return text if text is not None else "–" if value is None else json.dumps(value, ensure_ascii=False)


def match_rows(matches: Sequence[Match]) -> list[tuple[str, str, str]]:
    """(score, id, the record in words) of each match."""
    return [
        (f"{match.score:.3f}", match.item.id, "; ".join(f"{name} {value}" for name, value in record_rows(match.item)[1:]))
        for match in matches
    ]


def said_of_count(count: Count) -> str:
    """A count in a sentence."""
    items = "1 item" if count.value == 1 else f"{count.value} items"
    sure = count.probabilities[count.value]
    told = f"{items} ({sure:.0%} sure)"
    if count.more > sure:
        told = f"more than {len(count.probabilities) - 1} items ({count.more:.0%} sure), else {items} ({sure:.0%})"
    return f"The photo most likely shows {told}; the interval is {interval_in_words(count)}."


def said_of_books(count: Count, recorded: int) -> str:
    """Whether a count and the recorded quantity agree, in a sentence."""
    chance = 1 - disagreement(count, recorded)
    most = len(count.probabilities) - 1
    told = f"{recorded} (or any number above {most})" if recorded > most else str(recorded)
    if is_likeliest(count, recorded):
        return f"They agree: the books say {recorded}, and the photo shows {told} with a probability of {chance:.0%}."
    if is_in_interval(count, recorded):
        return f"They may agree: the books say {recorded}, which the interval holds, with a probability of {chance:.0%}."
    return f"They disagree: the books say {recorded}, but the photo shows {told} with a probability of {chance:.0%} only."


def distribution(count: Count) -> list[tuple[str, float]]:
    """P(i items) for each i, and for more than the model tells apart: (name, probability)."""
    most = len(count.probabilities) - 1
    return [*((str(i), p) for i, p in enumerate(count.probabilities)), (f">{most}", count.more)]


def store_rows(info: StoreInfo, name: str) -> Rows:
    """What is known of a store as (name, value)."""
    rows = [
        ("answers come from", name),
        ("items", f"{info.items:,}"),
        ("model", info.model.rstrip("/").rpartition("/")[2]),
        ("vector length", str(info.dim)),
        ("fingerprint", info.fingerprint),
        ("made", info.created or "not known"),
    ]
    return rows + [(one.replace("_", " "), _cell(value)) for one, value in info.detail.items() if one not in _HIDDEN]


def sentence_of(error: BinsightError | OSError) -> str:
    """An error as a visitor reads it: a whole sentence, no traceback, and not where the server keeps its files.

    >>> sentence_of(BadImage("an empty file"))
    'The photo cannot be used: an empty file.'
    >>> sentence_of(BadImage("the image: an empty file"))  # as an encoder and a server say it
    'The photo cannot be used: an empty file.'
    """
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror  # without the name of a file of this machine
    if isinstance(error, BadImage):
        text = f"The photo cannot be used: {text.removeprefix('the image: ')}"
    elif isinstance(error, WrongUse):
        text = f"That cannot be done as asked: {text}"
    else:
        text = f"That cannot be done now: {_FOLDERS.sub('', text)}"
    return text if text.endswith((".", "!", "?")) else f"{text}."


def short_caption(item: Item) -> str:
    """An item's id and label."""
    label = value_text(item.metadata.get("label"))
    return f"{item.id} · {label}" if label and label != item.id else item.id


def said_of_survey(survey: Survey) -> str:
    """What was looked at, in a sentence."""
    if not survey.looked_at:
        return "The store holds no items yet."
    names = ", ".join(one.name for one in survey.fields) or "none"
    if survey.looked_at >= survey.total:
        return f"The store holds {survey.total:,} items; fields to filter by are {names}."
    which = "the first" if survey.is_listed else "some, near a few random vectors, since a server lists nothing"
    return (
        f"The store holds {survey.total:,} items. Of these {survey.looked_at:,} were looked at ({which}): fields to filter by "
        f"are {names}; there may be others."
    )
