"""A network as OpenVINO runs it: exported once, kept in the user's cache, run without torch.

A cache entry is a folder `openvino/FINGERPRINT-VERSION` with `model.xml`, `model.bin`, for some networks `mixed.xml`, and
`manifest.json`, which names the fingerprint and the sha256 of each; an entry that does not match is made again. OpenVINO's
own cache of compiled models is not used: compiling takes 0.1 s, it saves half of that, and its files carry no checksum.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import shutil
import sys
import tempfile
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from binsight import checkpoint, mixed_precision, vectors
from binsight.mixed_precision import Plan, has_bf16

if TYPE_CHECKING:
    from binsight.network import PixelNet

VERSION = 1  # of what an export computes; raise it when the graph around the backbone changes
MODEL, MIXED, DATA, MANIFEST = "model.xml", "mixed.xml", "model.bin", "manifest.json"
LEAST_COSINE = 0.9999  # of a float32 export to torch, on noise
_BULK = 8  # pictures a request; of 1 … 64 the fastest for ResNet-50 and MobileNetV2 on two cores, see bench/model.py
_SPOKEN: dict[Plan, str] = {"bf16": "bf16", "mixed": "bf16 and fp32", "fp32": "fp32"}
_TELEMETRY = "openvino_telemetry"
_log = logging.getLogger(__name__)


class NotConverted(Exception):
    """OpenVINO cannot run a network as torch does; the caller falls back on torch."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Export:
    """A network that OpenVINO can compile: uint8 (?, h, w, 3) → float32 (?, dim).

    plan: how it is best run on a CPU that has bfloat16; None when it was exported on one that has not.
    """

    folder: Path
    dim: int
    plan: Plan | None

    def read(self, plan: Plan) -> Any:  # ov.Model: openvino is untyped
        xml = MIXED if plan == "mixed" else MODEL
        return load_openvino().Core().read_model(self.folder / xml, self.folder / DATA)


def load_openvino() -> Any:  # the module: openvino is untyped
    """Import OpenVINO such that it sends no usage data.

    Its import reports to Google Analytics and writes to ~/intel unless `openvino_telemetry` cannot be imported, in which
    case it takes its own stand-in that does nothing.
    """
    if "openvino" in sys.modules or _TELEMETRY in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # documented: importing it raises ModuleNotFoundError
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[_TELEMETRY]


def entry_of(fingerprint: str, root: Path) -> Path:
    """Where the export of a model lies in the cache."""
    return root / "openvino" / f"{fingerprint}-{VERSION}"


def open_export(folder: Path, *, fingerprint: str) -> Export | None:
    """The export in a folder; None when there is none, it is damaged or another model's, or this CPU wants it measured."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        hashes = manifest["sha256"]
        if manifest["fingerprint"] != fingerprint or any(_sha256(folder / name) != hashes[name] for name in hashes):
            _log.warning("the cached export %s is damaged; making it again", folder)
            return None
        if manifest["plan"] is None and has_bf16():
            return None
        return Export(folder, manifest["dim"], manifest["plan"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("the cached export %s cannot be read (%s); making it again", folder, error)
        return None


def export(network: PixelNet, *, size: tuple[int, int], fingerprint: str, root: Path) -> Export:
    """Convert a network, keep it in the cache (a warning is logged when that cannot be written), and give it.

    Raises NotConverted when OpenVINO cannot convert it, or the result answers differently.
    """
    ov = load_openvino()
    model, dim = _convert(ov, network, size)

    def save(folder: Path) -> None:
        ov.save_model(model, folder / MODEL, compress_to_fp16=False)  # half width costs up to 0.0004 of cosine
        plan = mixed_precision.plan(ov, folder / MODEL, folder / MIXED, size=size) if has_bf16() else None
        hashes = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
        manifest = {"fingerprint": fingerprint, "dim": dim, "plan": plan, "openvino": ov.__version__, "sha256": hashes}
        (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

    entry = entry_of(fingerprint, root)
    try:
        checkpoint.publish(entry, save, is_good=lambda folder: open_export(folder, fingerprint=fingerprint) is not None)
        kept = open_export(entry, fingerprint=fingerprint)
    except OSError as error:
        _log.warning("the export of the model is not kept, so each start makes it anew: %s; set BINSIGHT_CACHE", error)
        kept = None
    if kept is not None:
        return kept
    temporary = Path(tempfile.mkdtemp(prefix="binsight-"))
    save(temporary)
    kept = open_export(temporary, fingerprint=fingerprint)
    assert kept is not None  # it was written a moment ago
    weakref.finalize(kept, shutil.rmtree, temporary, ignore_errors=True)
    return kept


@final
class OpenVinoRuntime:
    """Runs an export on the CPU; safe to use from several threads.

    Two compiled forms, each made when first needed: up to seven pictures go as one request to a model of any batch size
    that uses all cores for it; more are cut into requests of eight that run side by side, the last one padded. Two to seven
    take the second form when that alone is there: the last pictures of a job are not worth compiling the first.
    """

    def __init__(self, exported: Export, *, plan: Plan) -> None:
        self.dim = exported.dim
        self.name = f"openvino {_SPOKEN[plan]} on cpu"
        self._export = exported
        self._plan: Plan = plan
        self._hints = {"INFERENCE_PRECISION_HINT": "f32" if plan == "fp32" else "bf16"}
        self._few: Any = None  # ov.InferRequest
        self._few_lock = threading.Lock()
        self._many: Any = None  # ov.AsyncInferQueue
        self._many_lock = threading.Lock()

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of uint8 (n, h, w, 3), C-contiguous, n ≥ 1: float32 (n, dim), not normalised."""
        is_few = len(pixels) < _BULK and (len(pixels) == 1 or self._few is not None or self._many is None)
        return self._run_few(pixels) if is_few else self._run_many(pixels)

    def _run_few(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._few_lock:
            if self._few is None:
                self._few = self._compile("LATENCY", self._export.read(self._plan)).create_infer_request()
            result: NDArray[np.float32] = self._few.infer({0: pixels}, share_inputs=True)[0]
            return result

    def _run_many(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        features = np.empty((len(pixels), self.dim), np.float32)

        def keep(request: Any, start: int) -> None:  # ov.InferRequest
            stop = min(start + _BULK, len(pixels))
            features[start:stop] = request.get_output_tensor(0).data[: stop - start]

        rest = len(pixels) % _BULK
        last = np.concatenate([pixels[-rest:], np.zeros((_BULK - rest, *pixels.shape[1:]), np.uint8)]) if rest else None
        with self._many_lock:
            if self._many is None:
                model = self._export.read(self._plan)
                model.reshape([_BULK, *pixels.shape[1:]])
                self._many = load_openvino().AsyncInferQueue(self._compile("THROUGHPUT", model))
            self._many.set_callback(keep)
            for start in range(0, len(pixels) - rest, _BULK):
                self._many.start_async({0: pixels[start : start + _BULK]}, start, share_inputs=True)
            if last is not None:
                self._many.start_async({0: last}, len(pixels) - rest, share_inputs=True)
            self._many.wait_all()
        return features

    def _compile(self, hint: str, model: Any) -> Any:  # ov.Model → ov.CompiledModel
        return load_openvino().Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": hint, **self._hints})


def _convert(ov: Any, network: PixelNet, size: tuple[int, int]) -> tuple[Any, int]:  # → ov.Model, dim
    from binsight.network import example_pixels, features_of, quiet_tracing  # torch, needed for the first export only

    pixels = example_pixels(size, 3)
    wanted = features_of(network, pixels)  # (3, dim)
    try:
        with quiet_tracing():
            model = ov.convert_model(network, example_input=example_pixels(size, 2), input=[-1, *size, 3])
        came = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({0: pixels.numpy()})[0]
    except Exception as error:  # whatever a converter raises at a network it does not know
        raise NotConverted(f"{type(error).__name__}: {error}") from error
    cosine = (vectors.normalise(wanted) * vectors.normalise(came)).sum(axis=1) if came.shape == wanted.shape else np.zeros(3)
    if cosine.min() < LEAST_COSINE:
        raise NotConverted(f"its answer {came.shape} has cosine {cosine.min():.5f} to torch's, want {LEAST_COSINE}")
    return model, wanted.shape[1]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
