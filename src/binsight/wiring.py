"""Settings → encoder, store, searcher. What a command or a service needs, opened in the order that fails first."""

from __future__ import annotations

from binsight.encoder import Encoder, load_encoder
from binsight.errors import BadSettings, NotAStore
from binsight.search import Searcher
from binsight.settings import Settings
from binsight.store import VectorStore, open_store


def encoder_for(model: str, settings: Settings) -> Encoder:
    """The encoder of a model name or folder."""
    return load_encoder(model, device=settings.device, precision=settings.precision)


def open_for_indexing(url: str, model: str | None, settings: Settings) -> tuple[Encoder, VectorStore]:
    """A model and a store opened for writing; the store is made when it is not there.

    A store that is there is opened (and locked) before the model is loaded, and names the model when none is given.
    """
    try:
        store = open_store(url) if not url.startswith("exact:") else None
    except NotAStore as error:
        if model is None:
            raise BadSettings(f"{error}; a new store needs --model, for example --model resnet50") from error
        store = None
    if store is None:
        if model is None:
            raise BadSettings("a new store needs --model, for example --model resnet50 or --model local-dir:PATH")
        encoder = encoder_for(model, settings)
        return encoder, open_store(url, create=encoder.info)
    try:
        encoder = encoder_for(model or store.info.model, settings)
        store.expect(encoder.info)
    except BaseException:
        store.close()
        raise
    return encoder, store


def open_searcher(url: str, model: str | None, settings: Settings) -> Searcher:
    """A searcher over a store opened for reading, with the model that filled it unless another name for it is given."""
    store = open_store(url, read_only=True)
    try:
        return Searcher(encoder_for(model or store.info.model, settings), store)
    except BaseException:
        store.close()
        raise
