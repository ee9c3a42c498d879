"""How fast a process starts and answers (P11): `python -m bench.start --store bench-out/bench.store`.

Each figure is a fresh process: `import binsight`; and a serving process, from its start to the first answer to a photo: the
interpreter, imports, the model from the cache, the store, one search. The store may be any: its own vectors are 512-d, so the
model is a small network with 512 features made here (resnet18, random weights), exported once before the rounds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.report import Figure, tell

_SERVE = """
import json, sys, time
from binsight import load_encoder, open_store
encoder = load_encoder(sys.argv[1])
store = open_store(sys.argv[2], read_only=True)
vectors = encoder.encode([sys.argv[3]]).vectors
matches = store.query(vectors, k=10)[0]
print(json.dumps({"matches": len(matches), "torch": "torch" in sys.modules, "timm": "timm" in sys.modules}))
"""


def took(arguments: list[str]) -> tuple[float, str]:
    started = time.perf_counter()
    found = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
    return time.perf_counter() - started, found.stdout


def model_512(folder: Path) -> str:
    """A timm folder of a network with 512 features."""
    import timm
    from safetensors.torch import save_file

    network = timm.create_model("resnet18", pretrained=False)
    save_file(network.state_dict(), folder / "model.safetensors")
    config = {"architecture": "resnet18", "num_classes": 1000, "num_features": 512, "pretrained_cfg": network.pretrained_cfg}
    (folder / "config.json").write_text(json.dumps(config, default=str))
    return f"local-dir:{folder}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="bench-out/bench.store")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    bare = [took(["-c", "pass"])[0] for _ in range(options.rounds)]
    imports = [took(["-c", "import binsight"])[0] for _ in range(options.rounds)]
    figures = [
        Figure.median("python alone", bare, "s"),
        Figure.median("P11 import binsight, process included", imports, "s", "<= 0.3"),
    ]
    with tempfile.TemporaryDirectory(prefix="binsight-bench-") as name:
        from PIL import Image

        model = model_512(Path(name))
        photo = str(Path(name) / "photo.jpg")
        Image.effect_noise((400, 300), 60).convert("RGB").save(photo)
        arguments = ["-c", _SERVE, model, options.store, photo]
        first, _ = took(arguments)
        figures.append(Figure("first start ever (exports the model)", first, "s"))
        times = []
        for _ in range(options.rounds):
            seconds, out = took(arguments)
            times.append(seconds)
            answer = json.loads(out)
            assert answer == {"matches": 10, "torch": False, "timm": False}, answer
    figures.append(Figure.median("P11 process start to first answer, no torch", times, "s", "<= 3"))
    tell("start", figures, as_json=options.json, store=options.store)


if __name__ == "__main__":
    main()
