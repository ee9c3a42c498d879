"""Pictures below a prefix of a bucket, known by its listing alone: nothing is opened."""

from __future__ import annotations

from pathlib import PurePosixPath

from binsight.data.files import Files
from binsight.data.source import PICTURE_SUFFIXES, Listing, Picture, folder_name
from binsight.errors import BadSource


def list_bucket(files: Files, *, id_prefix: str = "") -> Listing:
    """Every object below the prefix whose name ends as a picture's does, in order of name; the others count as skipped.

    Ids and metadata are those of a folder: the path below the prefix, and the last folder as label. Raises BadSource when
    there is no picture, CannotBeDone when the bucket cannot be reached.
    """
    stamps = files.stamps()
    uris = sorted(uri for uri in stamps if PurePosixPath(uri).suffix.lower() in PICTURE_SUFFIXES)
    if not uris:
        raise BadSource(f"no picture under {files.root} ({len(stamps)} other objects), or no such bucket")
    pictures = [
        Picture(id_prefix + uri, files.root, uri, {"path": uri, "label": folder_name(files.root, uri)}, stamps[uri])
        for uri in uris
    ]
    return Listing(files.root, pictures, len(stamps) - len(uris), id_prefix=id_prefix, retries=files.retries)
