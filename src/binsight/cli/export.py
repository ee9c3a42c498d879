"""`binsight export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from binsight import checkpoint, onnx_export, openvino_export
from binsight.checkpoint import Checkpoint
from binsight.cli.output import print_json
from binsight.encoder import open_model
from binsight.errors import BadSettings, CannotBeDone


class Format(StrEnum):
    """What a model can be exported to."""

    openvino = "openvino"
    onnx = "onnx"


def export(
    model: Annotated[str, typer.Option("--model", metavar="M", help="Model name or folder.")],
    to: Annotated[Format, typer.Option("--format", help="What to make of it.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to; by default openvino/ or onnx/ in the model's folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> int:
    """Export a model with all its heads, compare the export with torch, and print the largest difference.

    An `openvino/` inside a model's folder is what later loads run, so that they need no torch.
    """
    if model.startswith("binsight:"):
        raise BadSettings(f"{model} is no network, so there is nothing to export")
    folder = out.expanduser() if out is not None else _beside(model, to)
    with open_model(model) as opened:
        outputs, difference = _export(opened, to, folder)
    largest = None if difference is None else max(difference.values())
    if as_json:
        told = {"model": model, "format": to.value, "folder": str(folder), "outputs": outputs}
        print_json(told | {"fingerprint": opened.fingerprint, "difference": difference, "largest_difference": largest})
        return 0
    heads = ", ".join(f"{name} ({size})" for name, size in outputs.items())
    print(f"{folder}: {to.value}, pixels to {heads}")  # noqa: T201, the command's answer
    if difference is None or largest is None:
        print("not compared with torch: onnxruntime is not installed")  # noqa: T201
    else:
        each = ", ".join(f"{name} {value:.2g}" for name, value in difference.items())
        print(f"largest difference to torch {largest:.2g} ({each})")  # noqa: T201
    return 0


def _beside(model: str, to: Format) -> Path:
    folder = checkpoint.folder_of(model)
    if folder is None:
        raise BadSettings(f"{model} is no folder; say with --out where the export goes")
    return folder / to.value


def _export(opened: Checkpoint, to: Format, folder: Path) -> tuple[dict[str, int], dict[str, float] | None]:
    from binsight import network  # torch and timm

    net, size = network.load(opened), opened.config.preprocess.size
    try:
        if to is Format.openvino:
            made = openvino_export.export_to(folder, net, size=size, fingerprint=opened.identity)
            return made.outputs, made.difference
        exported = onnx_export.export_to(folder, net, size=size, fingerprint=opened.identity)
    except openvino_export.NotConverted as error:
        raise CannotBeDone(f"{to.value} cannot run this {opened.config.architecture}: {error}") from error
    except OSError as error:
        raise CannotBeDone(f"cannot write the export {folder} ({error.strerror or error}); give another with --out") from error
    return exported.outputs, exported.difference
