"""The only place that runs a model: pictures in, unit vectors out, with counts and labels where it has such heads.

Which runtime does it is settled at load: torch on a CUDA device when there is one, else OpenVINO on the CPU, else (for the
few networks that OpenVINO cannot convert, or when asked) torch on the CPU. All take uint8 pixels and normalise inside.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol, TypeAlias, final, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from binsight import checkpoint, descriptor, hub, openvino_export, vectors
from binsight.checkpoint import Checkpoint, Heads
from binsight.errors import BadImage, BadSettings, CannotBeDone, UnknownModel
from binsight.images import ImageLike
from binsight.mixed_precision import has_bf16
from binsight.preprocess import Preprocess
from binsight.records import Encoded, StoreInfo

if TYPE_CHECKING:
    from binsight.network import BinNet

Pixels: TypeAlias = NDArray[np.uint8]  # (n, h, w, 3)
Picture: TypeAlias = ImageLike  # what `encode` takes
PRECISIONS = ("auto", "fp32", "bf16")
RUNTIMES = ("auto", "openvino", "torch")
_CUDA_FILES = ("/dev/nvidiactl", "/dev/dxg")  # Linux; Windows' Linux
MOST_LABELS = 5  # that are told of a picture
_TORCH_BATCH = {"cpu": 32, "cuda": 256}
_RESTRICTED = re.compile(r"\bnc\b|non-?commercial", re.IGNORECASE)
_log = logging.getLogger(__name__)
_slow = _log.getChild("slow")  # what the command line tells without being asked, since it keeps people waiting


class Runtime(Protocol):
    """Something that turns pixels into features."""

    name: str
    dim: int

    def run(self, pixels: Pixels) -> NDArray[np.float32]:
        """Features of uint8 (n, h, w, 3), C-contiguous, n ≥ 1: float32 (n, dim), of any length."""


@runtime_checkable
class HeadedRuntime(Runtime, Protocol):
    """A runtime of a network that may have heads besides the features."""

    def run_heads(self, pixels: Pixels) -> dict[str, NDArray[np.float32]]:
        """In one pass, of pixels as `run` takes them: the features as "embedding", the logits of other heads by name."""


@final
class Encoder:
    """A loaded model. Safe to use from several threads.

    info: the dimension, the fingerprint and the name a store remembers. preprocess: the decode that `encode_pixels` wants
    its pixels from. heads: what it says besides vectors; the runtime of one that has any is a HeadedRuntime. runtime: what
    runs it, for people. load_s: seconds that loading (and `warm_up`) took.
    """

    def __init__(
        self,
        *,
        model: str,
        fingerprint: str,
        preprocess: Preprocess,
        runtime: Runtime,
        heads: Heads | None = None,
        load_s: float = 0.0,
    ) -> None:
        self.info = StoreInfo(dim=runtime.dim, fingerprint=fingerprint, model=model)
        self.preprocess = preprocess
        self.heads = heads or Heads()
        self.runtime = runtime.name
        self.load_s = load_s
        self._runtime = runtime
        self._warm: set[int] = set()  # sizes of batches

    def __repr__(self) -> str:
        return f"Encoder({self.info.model!r}, dim={self.info.dim}, {self.runtime})"

    def encode(self, images: Sequence[Picture], *, batch_size: int = 64) -> Encoded:
        """Unit vectors (and counts and labels) of pictures; the next batch is decoded while the model runs one.

        images: paths, bytes, PIL images or uint8 arrays (h, w, 3), in any mixture. An empty list gives (0, dim).
        Raises BadImage naming the first picture that cannot be read, BadSettings when `images` is one picture rather than
        a list, or batch_size is below 1.
        """
        if isinstance(images, (str, bytes)) or not isinstance(images, Sequence):
            raise BadSettings(f"want a list of pictures, got one {type(images).__name__}; pass one picture as [picture]")
        if batch_size < 1:
            raise BadSettings(f"want a batch_size of at least 1, got {batch_size}")
        if len(images) == 1:
            return self.encode_pixels(self._decode_only(images[0])[np.newaxis])
        return self._joined([self.encode_pixels(pixels) for pixels in self._decoded_batches(images, batch_size)])

    def encode_pixels(self, pixels: Pixels) -> Encoded:
        """Unit vectors (and counts and labels) of pixels that `self.preprocess` made: uint8 (n, h, w, 3).

        Raises BadSettings when they are of another type or shape, BadVectors when the model's answer has no direction or is
        not finite.
        """
        wanted = (*self.preprocess.size, 3)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != wanted:
            raise BadSettings(f"want uint8 pixels (n, {', '.join(map(str, wanted))}), got {pixels.dtype} {pixels.shape}")
        if not len(pixels):
            return self._joined([])
        said = self._run(np.ascontiguousarray(pixels))
        counts = self.heads.count.counts(said["count"]) if self.heads.count is not None else None
        labels = _likeliest(said["label"], self.heads.classes) if self.heads.classes is not None else None
        return Encoded(vectors.normalise(said["embedding"]), counts, labels)

    def warm_up(self, batch_size: int = 1) -> None:
        """Compile what batches of this size need, so that the first real one is as fast as the next; adds to `load_s`. Once."""
        if batch_size in self._warm:
            return
        started = time.perf_counter()
        self._run(np.full((batch_size, *self.preprocess.size, 3), 127, np.uint8))
        self.load_s += time.perf_counter() - started
        self._warm.add(batch_size)

    def _run(self, pixels: Pixels) -> dict[str, NDArray[np.float32]]:
        if isinstance(self._runtime, HeadedRuntime):
            return self._runtime.run_heads(pixels)
        return {"embedding": self._runtime.run(pixels)}

    def _joined(self, parts: Sequence[Encoded]) -> Encoded:
        rows = np.concatenate([np.empty((0, self.info.dim), np.float32), *(part.vectors for part in parts)])
        counts = [count for part in parts for count in part.counts or ()] if self.heads.count is not None else None
        labels = [label for part in parts for label in part.labels or ()] if self.heads.classes is not None else None
        return Encoded(rows, counts, labels)

    def _decode_only(self, image: Picture) -> NDArray[np.uint8]:
        try:
            return self.preprocess.pixels(image)
        except BadImage as error:
            name = os.fspath(image) if isinstance(image, (str, os.PathLike)) else "the image"
            raise BadImage(f"{name}: {error}") from error

    def _decode(self, image: Picture, index: int) -> NDArray[np.uint8]:
        try:
            return self.preprocess.pixels(image)
        except BadImage as error:
            named = f" ({os.fspath(image)})" if isinstance(image, (str, os.PathLike)) else ""
            raise BadImage(f"image {index}{named}: {error}") from error

    def _decoded_batches(self, images: Sequence[Picture], batch_size: int) -> Iterator[Pixels]:
        """Batches in order, one decoded ahead of the one that was taken."""

        def fill(pixels: Pixels, row: int, index: int) -> None:
            pixels[row] = self._decode(images[index], index)

        with ThreadPoolExecutor(max_workers=min(8, len(os.sched_getaffinity(0))), thread_name_prefix="decode") as pool:

            def submit(start: int) -> tuple[Pixels, list[Future[None]]]:
                stop = min(start + batch_size, len(images))
                pixels = np.empty((stop - start, *self.preprocess.size, 3), np.uint8)
                return pixels, [pool.submit(fill, pixels, index - start, index) for index in range(start, stop)]

            try:
                ahead = submit(0)
                for start in range(0, len(images), batch_size):
                    pixels, decoding = ahead
                    ahead = submit(min(start + batch_size, len(images)))
                    for future in decoding:
                        future.result()
                    yield pixels
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def load_encoder(model: str, *, device: str = "auto", precision: str = "auto", runtime: str = "auto") -> Encoder:
    """The encoder of a model.

    model: a model folder (`local-dir:PATH` or a path), a timm name (`resnet50`, `resnet50.a1_in1k`), `hf-hub:ORG/NAME`, or
    `binsight:colour-layout`, which needs no weights. device: "auto" (a CUDA device if there is one), "cpu", "cuda" or
    "cuda:1". precision: "auto" is bf16 where the hardware computes in it and as far as vectors keep a mean cosine
    of 0.999 to fp32 (`mixed_precision`), else fp32. runtime: what runs it on a CPU.

    The first load of a network exports it for OpenVINO into the cache; later ones need no torch, and no network.
    Raises UnknownModel, ModelUnavailable (no network), BadSettings, or CannotBeDone (no such device).
    """
    started = time.perf_counter()
    _check_choices(device, precision, runtime)
    heads = None
    if model == descriptor.NAME:
        chosen: Runtime = descriptor.ColourLayout()
        preprocess, fingerprint = descriptor.PREPROCESS, descriptor.fingerprint()
    elif model.startswith("binsight:"):
        raise UnknownModel(f"there is no built-in model {model!r}; there is {descriptor.NAME!r}")
    else:
        with open_model(model) as opened:
            preprocess, fingerprint, heads = opened.config.preprocess, opened.fingerprint, opened.heads
            _tell_licence(model, opened.licence)
            chosen = _runtime_of(opened, device, precision, runtime)
    load_s = time.perf_counter() - started
    return Encoder(
        model=_lasting(model), fingerprint=fingerprint, preprocess=preprocess, runtime=chosen, heads=heads, load_s=load_s
    )


def _lasting(model: str) -> str:
    """The name that a store remembers: a folder by its absolute path, so that it is found from anywhere."""
    folder = checkpoint.folder_of(model) if not model.startswith("binsight:") else None
    return f"local-dir:{folder.resolve()}" if folder is not None else model


def _check_choices(device: str, precision: str, runtime: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise BadSettings(f"want device 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    if precision not in PRECISIONS:
        raise BadSettings(f"want precision {' or '.join(map(repr, PRECISIONS))}, got {precision!r}")
    if runtime not in RUNTIMES:
        raise BadSettings(f"want runtime {' or '.join(map(repr, RUNTIMES))}, got {runtime!r}")
    if runtime == "openvino" and device.startswith("cuda"):
        raise BadSettings(f"OpenVINO runs on the CPU here, not on {device}; leave the runtime at 'auto'")


@contextmanager
def open_model(model: str) -> Iterator[Checkpoint]:
    """The folder of a model by its name, as `load_encoder` takes it, but without the built-in one.

    What timm or the hub calls by this name is fetched when there is no kept copy; a copy that cannot be kept is gone at the
    end of the `with`. Raises UnknownModel and ModelUnavailable.
    """
    folder = checkpoint.folder_of(model)
    kept = _kept(model) if folder is None else None
    if folder is not None or kept is not None:
        yield kept or checkpoint.open_folder(folder or Path())
        return
    with TemporaryDirectory(prefix="binsight-") as temporary:
        _fill(model, Path(temporary))
        yield checkpoint.open_folder(Path(temporary))


def _kept(model: str) -> Checkpoint | None:
    """The kept copy of what timm or the hub calls by this name, fetched when there is none; None where none can be kept."""
    kept = checkpoint.kept_folder(model, checkpoint.cache_root())
    if kept.is_dir():
        try:
            return checkpoint.open_folder(kept)
        except UnknownModel as error:
            _log.warning("the kept copy of %s is damaged, fetching it again: %s", model, error)
    try:
        checkpoint.publish(kept, lambda folder: _fill(model, folder), is_good=checkpoint.is_sound)
        return checkpoint.open_folder(kept)
    except OSError as error:
        _log.warning("%s is not kept, so each start fetches it: %s; set BINSIGHT_CACHE", model, error)
        return None


def _fill(model: str, folder: Path) -> None:
    _fetch(model, folder)
    checkpoint.seal(folder)


def _fetch(model: str, folder: Path) -> None:
    """Put a timm or hub model into a folder as a timm `local-dir`."""
    if model.startswith(hub.PREFIX):
        both = (checkpoint.CONFIG, checkpoint.WEIGHTS)
        hub.fetch(model, folder, repository=model.removeprefix(hub.PREFIX), files=both)
        return
    from binsight.backbone import look_up  # torch and timm

    config, repository = look_up(model)
    hub.fetch(model, folder, repository=repository, files=(checkpoint.WEIGHTS,))
    (folder / checkpoint.CONFIG).write_text(json.dumps(config), encoding="utf-8")


def _runtime_of(opened: Checkpoint, device: str, precision: str, runtime: str) -> Runtime:
    size = opened.config.preprocess.size
    if device.startswith("cuda") or runtime == "torch" or (device == runtime == "auto" and _has_cuda()):
        return TorchRuntime(_network_of(opened), size=size, device=device, precision=precision)
    if precision == "bf16" and not has_bf16():
        raise BadSettings("this CPU has no bfloat16 arithmetic; leave the precision at 'auto' or take 'fp32'")
    root = checkpoint.cache_root()
    exported = _exported(opened, root)
    if exported is None:
        _slow.info("%s is prepared for this CPU, which is done once and takes a while", opened.config.architecture)
        network = _network_of(opened)
        try:
            exported = openvino_export.export(network, size=size, fingerprint=opened.identity, root=root)
        except openvino_export.NotConverted as error:
            if runtime == "openvino":
                raise CannotBeDone(f"OpenVINO cannot run this {opened.config.architecture}: {error}") from error
            _log.warning("OpenVINO cannot run this %s, so torch does: %s", opened.config.architecture, error)
            return TorchRuntime(network, size=size, device="cpu", precision=precision)
    best = exported.plan if precision == "auto" and has_bf16() else None
    return openvino_export.OpenVinoRuntime(exported, plan=best or ("bf16" if precision == "bf16" else "fp32"))


def _exported(opened: Checkpoint, root: Path) -> openvino_export.Export | None:
    """The export that lies in the model's folder, else the one in the cache, else None."""
    places = (opened.folder / openvino_export.FOLDER, openvino_export.entry_of(opened.identity, root))
    sizes = opened.heads.sizes if opened.heads is not None else {}
    for place in places:
        exported = openvino_export.open_export(place, fingerprint=opened.identity)
        if exported is not None and exported.outputs.items() >= sizes.items():
            return exported
    return None


def _network_of(opened: Checkpoint) -> BinNet:
    from binsight import network  # torch and timm

    return network.load(opened)


def _tell_licence(model: str, licence: str) -> None:
    if licence:
        level = logging.WARNING if _RESTRICTED.search(licence) else logging.INFO
        _log.log(level, "the weights of %s are under the licence %s", model, licence)


def _likeliest(logits: NDArray[np.float32], classes: tuple[str, ...]) -> list[tuple[tuple[str, float], ...]]:
    """The most likely classes of each row of logits (n, classes), with softmax probabilities; equal ones in their order."""
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)  # (n, classes)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :MOST_LABELS]
    return [
        tuple((classes[one], float(row[one])) for one in best) for row, best in zip(probabilities, order.tolist(), strict=True)
    ]


def _has_cuda() -> bool:
    """Whether torch can use a CUDA device; torch is asked only where there is a driver's device file."""
    if not any(Path(device).exists() for device in _CUDA_FILES):
        return False
    import torch

    return torch.cuda.is_available()


@final
class TorchRuntime:
    """Runs a network as torch does: on CUDA in bf16 by default, on the CPU in fp32 by default (the reference)."""

    def __init__(self, network: BinNet, *, size: tuple[int, int], device: str, precision: str) -> None:
        import torch

        wanted = torch.device("cuda" if device == "auto" and _has_cuda() else "cpu" if device == "auto" else device)
        if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
            raise CannotBeDone(f"there is no device {device}: torch sees {torch.cuda.device_count()} CUDA devices; take 'cpu'")
        fast = wanted.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        self._torch = torch
        self._device = wanted
        self._bf16 = precision == "bf16" or (precision == "auto" and fast)
        self._network = network.to(wanted).to(memory_format=torch.channels_last)
        self.name = f"torch {'bf16' if self._bf16 else 'fp32'} on {wanted}"
        try:
            self.dim = self.run(np.zeros((1, *size, 3), np.uint8)).shape[1]
        except (ValueError, TypeError) as error:  # an argument that torch only looks at when it computes
            raise UnknownModel(f"the network cannot run: {error}") from error

    def run(self, pixels: Pixels) -> NDArray[np.float32]:
        """Features of uint8 (n, h, w, 3), C-contiguous, n ≥ 1: float32 (n, dim), not normalised."""
        return self.run_heads(pixels)["embedding"]

    def run_heads(self, pixels: Pixels) -> dict[str, NDArray[np.float32]]:
        """The features as "embedding", and the logits of each other head, float32 (n, size), in one pass."""
        torch, size = self._torch, _TORCH_BATCH[self._device.type]
        pixels = pixels if pixels.flags.writeable else pixels.copy()  # torch warns of an array that it could not write to
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            parts = [
                self._network(torch.from_numpy(pixels[start : start + size]).to(self._device, non_blocking=True))
                for start in range(0, len(pixels), size)
            ]
            return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
