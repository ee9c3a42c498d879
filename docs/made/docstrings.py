"""Examples in docstrings are shown as code: without this Markdown takes `>>>` for a quotation."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


class FencedExamples(Extension):
    """Puts examples between fences."""

    def on_object(self, *, obj: Object, **_: Any) -> None:  # griffe's own arguments
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """The same text with its examples between fences.

    >>> print(fenced("One more.").rstrip())
    One more.
    """
    return _EXAMPLE.sub(lambda found: f"```python\n{found[0]}\n```", text)
