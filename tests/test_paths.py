"""Paths as people type them and as others may read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from binsight.errors import BadSettings, BadSource
from binsight.paths import shown, user_path


def test_a_path_need_not_be_there_and_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/parts") == tmp_path / "parts"
    assert user_path(tmp_path / "nothing/at/all") == tmp_path / "nothing/at/all"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "got an empty one"),
        ("~nosuchuser/parts", "home directory"),
        ("x" * 300, "File name too long"),
        ("x/" * 3000, "File name too long"),
        ("{tmp}/loop", "Too many levels of symbolic links"),
        ("a\0b", "null byte"),
        ("\ud83d", "surrogates"),
    ],
)
def test_a_path_that_the_system_does_not_take_is_wrong_use(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(BadSource, match=why) as told:
        user_path(text.format(tmp=tmp_path))
    assert len(str(told.value)) < 400


def test_the_error_is_the_one_that_the_door_wants() -> None:
    with pytest.raises(BadSettings, match="File name too long"):
        user_path("x" * 300, error=BadSettings)


def test_a_name_that_is_no_utf_8_is_shown_by_its_bytes() -> None:
    assert shown(Path(os.fsdecode(b"parts/\xff.png"))) == "parts/\\udcff.png"
