"""What the tests of batch jobs share: pictures, jobs in this process and in others, and what a store holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from indexer.cli import run
from numpy.typing import NDArray

from binsight.store import VectorStore

MODEL = "binsight:colour-layout"
SMALL_BATCHES = {"BINSIGHT_BATCH_SIZE": "8", "BINSIGHT_WORKERS": "2"}
State: TypeAlias = dict[str, tuple[str, NDArray[np.float32]]]
Done: TypeAlias = Callable[..., dict[str, Any]]


def done_with(capsys: pytest.CaptureFixture[str]) -> Done:
    """Runs a job in this process and gives its report; nothing but JSON may be on stdout."""

    def done(*arguments: object, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        ended = run([*map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        assert ended == code, err
        report: dict[str, Any] = json.loads(out)
        return report

    return done


def state(store: VectorStore) -> State:
    """Record and vector of every item."""
    items = {item.id: item for item in store.scan()}
    rows = store.vectors_of(list(items))
    return {one: (json.dumps(item.metadata, sort_keys=True), row) for (one, item), row in zip(items.items(), rows, strict=True)}


def assert_alike(found: State, wanted: State) -> None:
    """Equal records; vectors equal but for the last bit, in which Redis rounds."""
    assert {one: text for one, (text, _) in found.items()} == {one: text for one, (text, _) in wanted.items()}
    for one, (_, row) in wanted.items():
        np.testing.assert_allclose(found[one][1], row, atol=1e-6)


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """A job in a process of its own."""
    command = [sys.executable, "-m", "indexer", *map(str, arguments)]
    given = os.environ | SMALL_BATCHES | environment
    return subprocess.Popen(command, env=given, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
