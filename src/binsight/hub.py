"""Files of the model hub, with a way out soon where there is no network. The only huggingface_hub import; no torch.

Only safetensors are ever asked for: the other weights a repository may hold are pickles, which can run code.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from binsight.errors import ModelUnavailable, UnknownModel

PREFIX = "hf-hub:"
_INSTEAD = (
    "give a folder that holds the model as local-dir:PATH (config.json and model.safetensors), such as models/bins-mobilenetv2 "
    "of a checkout; or try things out with binsight:colour-layout, which needs none"
)
_CONNECT_S = 4.0  # where a hub answers at all, it does so in well under a second
_log = logging.getLogger(__name__)


def fetch(model: str, folder: Path, *, repository: str, files: tuple[str, ...]) -> None:
    """Copy files of a repository (`org/name`, or `org/name@revision`) into a folder.

    They come from the hub's own cache on this machine when they lie there. model: the name the user gave, for messages.
    Raises UnknownModel (no such repository, or it lacks a file) or ModelUnavailable (no network).
    """
    name, _, revision = repository.partition("@")
    for file in files:
        shutil.copyfile(_download(model, name, file, revision or None), folder / file)


def _download(model: str, repository: str, file: str, revision: str | None) -> Path:
    import huggingface_hub as hub  # 0.2 s that a local folder does not need
    from huggingface_hub import constants, errors

    get: Callable[..., str] = hub.hf_hub_download
    try:
        return Path(get(repository, file, revision=revision, local_files_only=True))
    except errors.LocalEntryNotFoundError:
        pass
    except ValueError as error:  # HFValidationError: no repository's name
        raise UnknownModel(f"{model!r} names no hub repository: {error}") from error
    where = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        raise ModelUnavailable(f"{model!r} is not on this machine, and HF_HUB_OFFLINE forbids the network; {_INSTEAD}")
    _log.warning("%s of %s is not on this machine: asking the hub, %s", file, model, where)
    if not _answers(where):
        raise ModelUnavailable(f"{model!r} is not on this machine, and the hub ({where}) cannot be reached; {_INSTEAD}")
    try:
        return Path(get(repository, file, revision=revision, etag_timeout=_CONNECT_S))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UnknownModel(f"{where} has no public {repository} {revision or ''}; {_INSTEAD}") from error
    except errors.LocalEntryNotFoundError as error:  # also an EntryNotFoundError, so it stands first
        raise ModelUnavailable(f"{model!r} could not be fetched from {where}: {error}; {_INSTEAD}") from error
    except errors.EntryNotFoundError as error:
        raise UnknownModel(f"{repository} has no {file}, and pickled weights are not read; {_INSTEAD}") from error
    except Exception as error:  # the errors of its HTTP library, which has changed name twice
        raise ModelUnavailable(f"{model!r} could not be fetched from {where}: {error}; {_INSTEAD}") from error


def _answers(endpoint: str) -> bool:
    """Whether a server is there, asked once: the hub's own client would try for half a minute."""
    from huggingface_hub import get_session

    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=_CONNECT_S)
        except Exception as error:  # noqa: BLE001  # as in _download
            _log.info("%s does not answer: %s", endpoint, error)
        else:
            answered.set()

    asking = threading.Thread(target=ask, daemon=True)  # a name server that is silent ignores the timeout
    asking.start()
    asking.join(2 * _CONNECT_S)
    return answered.is_set()
