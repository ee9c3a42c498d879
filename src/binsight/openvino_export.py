"""A network as OpenVINO runs it: exported once, kept in the user's cache, run without torch.

A cache entry is a folder `openvino/FINGERPRINT-VERSION` with `model.xml`, `model.bin`, for some networks `mixed.xml`, and
`manifest.json`, which names the fingerprint (of all heads: `Checkpoint.identity`) and the sha256 of each; an entry that does
not match is made again. A model folder may hold such a folder as `openvino/`. OpenVINO's
own cache of compiled models is not used: compiling takes 0.1 s, it saves half of that, and its files carry no checksum.
"""

from __future__ import annotations

import errno
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
from binsight.errors import BadSettings
from binsight.mixed_precision import Plan, has_bf16

if TYPE_CHECKING:
    from binsight.network import BinNet

VERSION = 4  # of what an export computes; raise it when the graph around the backbone or the choice of precisions changes
MODEL, MIXED, DATA, MANIFEST = "model.xml", "mixed.xml", "model.bin", "manifest.json"
FOLDER = "openvino"  # in the cache, and in a model folder
LEAST_COSINE = 0.9999  # of a float32 export to torch, on noise
MOST_OFF = 0.01  # logits of a float32 export from torch's, of the largest of them or of 1
_BULK = 8  # pictures a request; of 1 … 64 the fastest for ResNet-50 and MobileNetV2 on two cores, see bench/model.py
_FEW = 2 * _BULK  # fewer pictures fill less than two such requests, so cores would be idle
_SPOKEN: dict[Plan, str] = {"bf16": "bf16", "mixed": "bf16 and fp32", "fp32": "fp32"}
_TELEMETRY = "openvino_telemetry"
_core: list[Any] = []  # none, or the ov.Core
_core_lock = threading.Lock()
_log = logging.getLogger(__name__)


class NotConverted(Exception):
    """OpenVINO cannot run a network as torch does; the caller falls back on torch."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Export:
    """A network that OpenVINO can compile: uint8 (?, h, w, 3) → float32 (?, size) for each of its outputs.

    outputs: their names, "embedding" first, and sizes. difference: the largest to torch of each, on noise: of the entries of
    unit vectors, and of logits. plan: how it is best run on a CPU that has bfloat16; None when it was exported on one that
    has not.
    """

    folder: Path
    outputs: dict[str, int]
    difference: dict[str, float]
    plan: Plan | None

    def read(self, plan: Plan) -> Any:  # ov.Model: openvino is untyped
        xml = MIXED if plan == "mixed" else MODEL
        return openvino_core().read_model(self.folder / xml, self.folder / DATA)


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


def openvino_core() -> Any:  # ov.Core: openvino is untyped
    """The one Core of this process, which is never let go.

    On a CPU with AMX the first compilation moves the calling thread's signal stack into memory of the Core's CPU plugin, and
    the end of the plugin unmaps it. With a second Core, or one that ends in another thread, the thread is left with a stack
    that is not there, and the next signal, Ctrl-C or SIGTERM, ends the process with SIGSEGV.
    """
    with _core_lock:
        if not _core:
            _core.append(load_openvino().Core())
        return _core[0]


def entry_of(fingerprint: str, root: Path) -> Path:
    """Where the export of a model lies in the cache."""
    return root / FOLDER / f"{fingerprint}-{VERSION}"


def open_export(folder: Path, *, fingerprint: str) -> Export | None:
    """The export in a folder; None when there is none, it is damaged or another model's, or this CPU wants it measured."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        hashes, outputs = manifest["sha256"], manifest["outputs"]
        is_ours = (manifest["fingerprint"], manifest["version"]) == (fingerprint, VERSION)
        if not is_ours or any(_sha256(folder / name) != hashes[name] for name in hashes) or not _are_outputs(outputs):
            _log.warning("the export %s is damaged or of another model or version; making it again", folder)
            return None
        if manifest["plan"] is None and has_bf16():
            return None
        return Export(folder, outputs, manifest["difference"], manifest["plan"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("the export %s cannot be read (%s); making it again", folder, error)
        return None


def export(network: BinNet, *, size: tuple[int, int], fingerprint: str, root: Path) -> Export:
    """Convert a network, keep it in the cache (a warning is logged when that cannot be written), and give it.

    Raises NotConverted when OpenVINO cannot convert it, or the result answers differently.
    """
    converted = _convert(network, size)

    def save(folder: Path) -> None:
        _save(converted, folder, size=size, fingerprint=fingerprint)

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


def export_to(folder: Path, network: BinNet, *, size: tuple[int, int], fingerprint: str) -> Export:
    """Convert a network into a folder of the user's, which must not be there or hold an export of ours, which gives way.

    Raises NotConverted as `export`, BadSettings when something else is there, OSError when it cannot be written.
    """
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadSettings(f"{folder} is there and is no export; give another with --out")
    converted = _convert(network, size)
    checkpoint.replace(folder, lambda made: _save(converted, made, size=size, fingerprint=fingerprint))
    made = open_export(folder, fingerprint=fingerprint)
    assert made is not None  # it was written a moment ago
    return made


def differences(
    wanted: dict[str, NDArray[np.float32]], came: dict[str, NDArray[np.float32]]
) -> tuple[dict[str, float], str | None]:
    """The largest difference of each output, as `Export.difference`; and what is wrong with it, where it is too large.

    wanted: what torch says, by output; came: what another runtime says of the same pixels.
    """
    found: dict[str, float] = {}
    for name, reference in wanted.items():
        other = came[name]
        if other.shape != reference.shape or not np.isfinite(other).all():
            return found, f"its answer {name} is {other.shape}, torch's {reference.shape}, or it is not finite"
        if name == "embedding":
            units = vectors.normalise(reference), vectors.normalise(other)
            cosine = (units[0] * units[1]).sum(axis=1).min()
            found[name] = float(np.abs(units[0] - units[1]).max())
            if cosine < LEAST_COSINE:
                return found, f"its answer {other.shape} has cosine {cosine:.5f} to torch's, want {LEAST_COSINE}"
        else:
            found[name] = float(np.abs(other - reference).max())
            if found[name] > MOST_OFF * max(1.0, float(np.abs(reference).max())):
                return found, f"its {name} logits differ by {found[name]:.3g} from torch's"
    return found, None


@final
class OpenVinoRuntime:
    """Runs an export on the CPU; safe to use from several threads.

    Two compiled forms, each made when first needed: up to fifteen pictures go as one request to a model of any batch size
    that uses all cores for it; more are cut into requests of eight that run side by side, the last one padded. Two to fifteen
    take the second form when that alone is there: the last pictures of a job are not worth compiling the first.
    """

    def __init__(self, exported: Export, *, plan: Plan) -> None:
        self.dim = exported.outputs["embedding"]
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
        return self.run_heads(pixels)["embedding"]

    def run_heads(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """The features as "embedding", and the logits of each other head, float32 (n, size), in one pass."""
        is_few = len(pixels) < _FEW and (len(pixels) == 1 or self._few is not None or self._many is None)
        return self._run_few(pixels) if is_few else self._run_many(pixels)

    def _run_few(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        with self._few_lock:
            if self._few is None:
                self._few = self._compile("LATENCY", self._export.read(self._plan)).create_infer_request()
            result = self._few.infer({0: pixels}, share_inputs=True)
            return {name: result[number] for number, name in enumerate(self._export.outputs)}

    def _run_many(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        answers = {name: np.empty((len(pixels), size), np.float32) for name, size in self._export.outputs.items()}

        def keep(request: Any, start: int) -> None:  # ov.InferRequest
            stop = min(start + _BULK, len(pixels))
            for number, answer in enumerate(answers.values()):
                answer[start:stop] = request.get_output_tensor(number).data[: stop - start]

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
        return answers

    def _compile(self, hint: str, model: Any) -> Any:  # ov.Model → ov.CompiledModel
        return openvino_core().compile_model(model, "CPU", {"PERFORMANCE_HINT": hint, **self._hints})


@dataclass(frozen=True, slots=True)
class _Converted:
    model: Any  # ov.Model
    exact: Any  # ov.CompiledModel, in float32
    outputs: dict[str, int]
    difference: dict[str, float]


def _convert(network: BinNet, size: tuple[int, int]) -> _Converted:
    from binsight.network import TupleNet, answers_of, example_pixels, quiet_tracing, traced  # torch, for the first export only

    ov, pixels = load_openvino(), example_pixels(size, 3)
    wanted = answers_of(network, pixels)
    named = TupleNet(network).eval()
    try:
        with quiet_tracing():
            example = example_pixels(size, 2)
            model = ov.convert_model(traced(named, example), example_input=example, input=[-1, *size, 3])
        for number, name in enumerate(named.names):
            model.output(number).tensor.set_names({name})
        exact = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        said = exact({0: pixels.numpy()})
        came = {name: np.asarray(said[number]) for number, name in enumerate(named.names)}
    except Exception as error:  # whatever a converter raises at a network it does not know
        raise NotConverted(f"{type(error).__name__}: {error}") from error
    difference, wrong = differences({name: wanted[name] for name in named.names}, came)
    if wrong is not None:
        raise NotConverted(wrong)
    return _Converted(model, exact, {name: came[name].shape[1] for name in named.names}, difference)


def _save(converted: _Converted, folder: Path, *, size: tuple[int, int], fingerprint: str) -> None:
    ov = load_openvino()
    try:
        ov.save_model(converted.model, folder / MODEL, compress_to_fp16=False)  # half width costs up to 0.0004 of cosine
    except RuntimeError as error:  # how it tells of a full disk
        raise OSError(errno.EIO, str(error).strip().rpartition("\n")[2]) from error
    plan = None
    if has_bf16():
        plan = mixed_precision.plan(openvino_core(), folder / MODEL, folder / MIXED, size=size, exact=converted.exact)
    manifest = {
        "version": VERSION,
        "fingerprint": fingerprint,
        "outputs": converted.outputs,
        "difference": converted.difference,
        "plan": plan,
        "openvino": ov.__version__,
        "sha256": {path.name: _sha256(path) for path in sorted(folder.iterdir())},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def _are_outputs(outputs: object) -> bool:
    if not isinstance(outputs, dict) or not all(type(size) is int and size > 0 for size in outputs.values()):
        return False
    return list(outputs) == [name for name in checkpoint.HEADS if name in outputs] and "embedding" in outputs


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
