"""Settings → encoder, store, searcher. What a command or a service needs, opened in the order that fails first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from binsight.encoder import Encoder, load_encoder
from binsight.errors import BadSettings, ModelMismatch, NotAStore
from binsight.records import StoreInfo
from binsight.search import Searcher
from binsight.settings import Settings
from binsight.store import VectorStore, open_store


def encoder_for(model: str, settings: Settings) -> Encoder:
    """The encoder of a model name or folder."""
    return load_encoder(model, device=settings.device, precision=settings.precision)


@final
class Models:
    """The models that a process was given, loaded; a store's is found by its fingerprint. None given: the one it names."""

    def __init__(self, names: Sequence[str], settings: Settings) -> None:
        self._settings = settings
        self._loaded: dict[str, Encoder] = {}
        self.names = list(dict.fromkeys(names))

    def loaded(self) -> list[Encoder]:
        """Those that are in memory by now: when several were given and one was asked for, all."""
        return list(self._loaded.values())

    def first(self) -> Encoder:
        """For a store that is made. Raises BadSettings when none was given."""
        if not self.names:
            raise BadSettings("a new store needs --model, for example --model resnet50 or --model local-dir:PATH")
        return self._load(self.names[0])

    def of(self, info: StoreInfo) -> Encoder:
        """The model that filled a store. Raises ModelMismatch where it is none of those that were given."""
        if not self.names:
            return encoder_for(info.model, self._settings)
        given = {name: self._load(name).info.fingerprint for name in self.names}
        for name, fingerprint in given.items():
            if fingerprint == info.fingerprint:
                return self._load(name)
        told = ", ".join(f"{name!r} (fingerprint {fingerprint})" for name, fingerprint in given.items())
        raise ModelMismatch(
            f"the store was filled by {info.model!r} (fingerprint {info.fingerprint}), but given was {told}; "
            "use the model that filled the store, or index the pictures anew into another store"
        )

    def _load(self, name: str) -> Encoder:
        if name not in self._loaded:
            self._loaded[name] = encoder_for(name, self._settings)
        return self._loaded[name]


def open_for_indexing(url: str, model: str | None, settings: Settings) -> tuple[Encoder, VectorStore]:
    """A model and a store opened for writing; the store is made when it is not there.

    A store that is there is opened (and locked) before the model is loaded, and names the model when none is given.
    """
    return open_with(url, Models([model] if model else [], settings))


def open_with(url: str, models: Models, *, read_only: bool = False) -> tuple[Encoder, VectorStore]:
    """A store and the one of the models that filled it. A store that is not there is made for the first, unless read_only."""
    try:
        store = open_store(url, read_only=read_only) if not url.startswith("exact:") else None
    except NotAStore as error:
        if read_only:
            raise
        if not models.names:
            raise BadSettings(f"{error}; a new store needs --model, for example --model resnet50") from error
        store = None
    if store is None:
        encoder = models.first()
        return encoder, open_store(url, create=encoder.info)
    try:
        encoder = models.of(store.info)
        store.expect(encoder.info)
    except BaseException:
        store.close()
        raise
    return encoder, store


def open_searcher(url: str, model: str | None, settings: Settings) -> Searcher:
    """A searcher over a store opened for reading, with the model that filled it unless another name for it is given."""
    encoder, store = open_with(url, Models([model] if model else [], settings), read_only=True)
    return Searcher(encoder, store)
