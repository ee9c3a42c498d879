"""The real photos with both backbones: `python -m bench.real`.

Indexes PC parts and the bins' original photos, measures recall@1 on PC parts by leave-one-out (each part asks, itself left
out; the label is the folder's name), and draws ten searches of each kind as a sheet under bench-out/.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

import numpy as np

from bench.report import Figure, tell
from binsight.encoder import load_encoder
from binsight.ingest import ingest, list_sources
from binsight.sheet import SheetMatch, SheetRow, contact_sheet
from binsight.store import VectorStore, open_store

OUT = Path("bench-out")


def leave_one_out(store: VectorStore, ids: list[str], labels: list[str], k: int = 10) -> tuple[float, float, list[list[str]]]:
    """(recall@1, recall@k, the ids found), each item asking with its own vector, itself left out."""
    label_of = dict(zip(ids, labels, strict=True))
    found = []
    for at in range(0, len(ids), 256):
        part = ids[at : at + 256]
        for one, matches in zip(part, store.query(store.vectors_of(part), k=k + 1), strict=True):
            found.append([match.item.id for match in matches if match.item.id != one][:k])
    first = np.mean([label_of[line[0]] == label for line, label in zip(found, labels, strict=True)])
    any_of = np.mean([any(label_of[one] == label for one in line) for line, label in zip(found, labels, strict=True)])
    return float(first), float(any_of), found


def products(data: Path, path: str) -> set[str]:
    record = json.loads((data / "abid/metadata" / f"{Path(path).stem}.json").read_text())
    return set(record["BIN_FCSKU_DATA"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(__file__).resolve().parents[2] / "shared"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("BINSIGHT_DATA") or shared / "data"))
    parser.add_argument("--weights", type=Path, default=Path(os.environ.get("BINSIGHT_WEIGHTS") or shared / "weights"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    figures = []
    for name in ("resnet50", "mobilenetv2_100"):
        encoder = load_encoder(f"local-dir:{options.weights / name}")
        encoder.warm_up(128)
        for kind, source in (("pc_parts", options.data / "pc_parts"), ("originals", options.data / "abid/originals")):
            folder = OUT / f"{kind}-{name}.store"
            shutil.rmtree(folder, ignore_errors=True)
            with open_store(folder, create=encoder.info) as store:
                report = ingest(list_sources([str(source)]), encoder, store)
                figures.append(Figure(f"{name} {kind}: {report.indexed} indexed", report.images_per_s, "images/s"))
                figures.append(Figure(f"{name} {kind}: refused", len(report.refused), "files"))
                items = sorted(store.scan(), key=lambda item: item.id)
                ids, labels = [item.id for item in items], [item.metadata["label"] for item in items]
                first, ten, found = leave_one_out(store, ids, labels)
                if kind == "pc_parts":
                    figures.append(Figure(f"{name} pc_parts: recall@1 leave-one-out", first, "", "0.78 (frozen)"))
                    figures.append(Figure(f"{name} pc_parts: recall@10 leave-one-out", ten, ""))
            rows = []
            for place in np.linspace(0, len(ids) - 1, 10).astype(int):
                matches = []
                for one in found[place][:6]:
                    if kind == "pc_parts":
                        label, right = one.split("/")[0], one.split("/")[0] == labels[place]
                    else:
                        shared_products = products(options.data, one) & products(options.data, ids[place])
                        label, right = f"{len(shared_products)} products shared", bool(shared_products)
                    with open_store(folder, read_only=True) as store:
                        score = float(store.vectors_of([one])[0] @ store.vectors_of([ids[place]])[0])
                    matches.append(SheetMatch(source / one, one, score, label, right))
                rows.append(SheetRow(source / ids[place], ids[place], matches))
            contact_sheet(rows, OUT / f"{kind}-{name}.png", title=f"{kind}: ten searches, {name}, frozen", tile_px=120)
    tell("real", figures, as_json=options.json)


if __name__ == "__main__":
    main()
