"""Pictures in a folder, or named one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from binsight.data.source import Listing, Picture, folder_name, inside, is_picture_file, joined
from binsight.errors import BadSource


def list_folder(folder: Path, *, id_prefix: str = "") -> Listing:
    """Every picture below a folder, in order of path.

    An item's id is its path relative to the folder; its metadata holds `path` and `label`, the parent folder's name.
    Regular files of other types, and links that lead out of the folder, count as skipped.
    Raises BadSource when the folder is not there, cannot be read, or holds no picture.
    """
    root = folder.resolve()
    pictures, skipped = [], 0
    away: list[str] = []
    for path in _walk(root):
        if (uri := inside(root, path)) is None:
            skipped += 1
        elif is_picture := is_picture_file(path):
            pictures.append(_picture(str(root), uri, id_prefix))
        else:
            skipped += 1
            away += [joined(str(root), uri)] if is_picture is None else []
    if not pictures:
        raise BadSource(f"no picture under {folder} ({skipped} other files); want JPEG, PNG, WEBP, BMP, TIFF or GIF files")
    return Listing(str(root), pictures, skipped, id_prefix=id_prefix, away=away)


def list_image(path: Path, *, id_prefix: str = "") -> Listing:
    """One picture; its id is its file name. Raises BadSource when there is no such file."""
    if not path.is_file():
        raise BadSource(f"no such file or folder: {path}")
    root = str(path.parent.resolve())
    return Listing(root, [_picture(root, path.name, id_prefix)], is_whole=False, id_prefix=id_prefix)


def _picture(root: str, uri: str, id_prefix: str) -> Picture:
    return Picture(id_prefix + uri, root, uri, {"path": uri, "label": folder_name(root, uri)})


def _walk(folder: Path) -> Iterator[Path]:
    """Paths of all entries that are no folders, sorted; a link to a folder is not followed."""

    def refuse(error: OSError) -> None:
        raise BadSource(f"cannot read the folder {error.filename}: {error.strerror}") from error

    for here, folders, files in os.walk(folder, onerror=refuse):
        folders.sort()
        linked = [name for name in folders if os.path.islink(os.path.join(here, name))]  # noqa: PTH114, PTH118, false where the system refuses
        for name in sorted([*files, *linked]):
            yield Path(here, name)
