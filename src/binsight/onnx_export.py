"""A network as one ONNX file: uint8 pixels (n, h, w, 3) in, the same answers out, checked against torch where it can be run."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from binsight import checkpoint, openvino_export
from binsight.errors import BadSettings, MissingExtra
from binsight.openvino_export import NotConverted

if TYPE_CHECKING:
    from binsight.network import BinNet, TupleNet

FILE, MANIFEST = "model.onnx", "onnx.json"
OPSET = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OnnxExport:
    """model.onnx in a folder: input "pixels"; outputs by name and size, in order; difference: as of an OpenVINO export.

    difference is None where onnxruntime is not installed, so nothing could be compared.
    """

    folder: Path
    outputs: dict[str, int]
    difference: dict[str, float] | None


def export_to(folder: Path, network: BinNet, *, size: tuple[int, int], fingerprint: str) -> OnnxExport:
    """Convert a network into a folder of the user's, which must not be there or hold an export of ours, which gives way.

    Beside the file lies onnx.json: the fingerprint and the outputs. Raises MissingExtra without onnx and onnxscript,
    NotConverted when torch cannot convert the network or the file answers differently, BadSettings when something else is in
    the folder, OSError when it cannot be written.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, extra="train")
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadSettings(f"{folder} is there and is no export; give another with --out")
    made: list[OnnxExport] = []

    def fill(temporary: Path) -> None:
        made.append(_export(temporary, network, size, fingerprint))

    checkpoint.replace(folder, fill)
    return OnnxExport(folder, made[0].outputs, made[0].difference)


def _export(folder: Path, network: BinNet, size: tuple[int, int], fingerprint: str) -> OnnxExport:
    from binsight.network import TupleNet, answers_of, example_pixels  # torch

    pixels = example_pixels(size, 3)
    wanted = answers_of(network, pixels)
    named = TupleNet(network).eval()
    _convert(named, size, folder / FILE)
    came = _run(folder / FILE, named.names, pixels.numpy())
    difference = None
    if came is not None:
        difference, wrong = openvino_export.differences({name: wanted[name] for name in named.names}, came)
        if wrong is not None:
            raise NotConverted(wrong)
    outputs = {name: wanted[name].shape[1] for name in named.names}
    told = {"fingerprint": fingerprint, "outputs": outputs, "difference": difference, "input": ["n", *size, 3]}
    (folder / MANIFEST).write_text(json.dumps(told), encoding="utf-8")
    return OnnxExport(folder, outputs, difference)


def _convert(named: TupleNet, size: tuple[int, int], file: Path) -> None:
    import torch

    from binsight.network import example_pixels

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's and onnxscript's own deprecations
            program = torch.onnx.export(
                named,
                (example_pixels(size, 2),),
                dynamo=True,
                input_names=["pixels"],
                output_names=list(named.names),
                dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # whatever an exporter raises at a network it does not know
        raise NotConverted(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}") from error
    assert program is not None  # it is None only for the exporter that torch had before
    program.save(os.fspath(file), external_data=False)


def _run(file: Path, names: tuple[str, ...], pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]] | None:
    """What onnxruntime says, by output; None where it is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        _log.warning("onnxruntime is not installed, so the export is not compared with torch")
        return None
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(os.fspath(file), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(list(names), {"pixels": pixels}), strict=True))
