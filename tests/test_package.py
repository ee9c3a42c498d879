"""The package as others meet it: a light import, public names, and a wheel that works outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

import binsight
from binsight.data.parts import catalogue
from binsight.data.warehouse import catalogue_photo
from tests.conftest import ROOT

HEAVY = ("torch", "torchvision", "timm", "faiss", "redis", "fastapi", "openvino", "PIL", "numpy", "pydantic", "typer")


def test_importing_binsight_loads_nothing_heavy() -> None:
    program = f"import sys, binsight; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_local_store_needs_no_model_library() -> None:
    program = "import sys; from binsight import open_store, Searcher, Filter, Item, Match, StoreInfo\n"
    program += "import binsight.store.faiss_store; print([n for n in ('torch', 'timm', 'openvino') if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in binsight.__all__:
        assert getattr(binsight, name) is not None, name
    assert set(binsight.__all__) <= set(dir(binsight))
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = binsight.nothing_like_it


def test_constraints_name_a_version_for_everything_that_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()]
    extras = project["optional-dependencies"]
    groups = (extras[name] for name in ("cpu", "api", "app", "dev", "docs"))
    declared = [*project["dependencies"], *(one for group in groups for one in group)]
    for one in declared:
        name = one.split(";")[0].split(">")[0].split("[")[0].strip().lower().replace("_", "-")
        assert name in names, one


@pytest.mark.timeout(900)
def test_the_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    """Built, installed into an empty environment (only the packages it depends on are lent to it), and used."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("binsight-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        held = {name: packed.read(name) for name in packed.namelist() if ".dist-info/" not in name}
    files = [path for path in (ROOT / "src").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert held == {path.relative_to(ROOT / "src").as_posix(): path.read_bytes() for path in files}
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env/bin/python"
    home = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")}))
    lent = sysconfig.get_path("purelib")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "-q", str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": lent, "HOME": str(tmp_path)}
    env |= {name: value for name, value in os.environ.items() if name.startswith("OMP_")}

    def run(*arguments: str) -> str:
        found = subprocess.run(arguments, check=True, capture_output=True, text=True, cwd=tmp_path, env=env)
        return found.stdout

    assert Path(run(str(python), "-c", "import binsight; print(binsight.__file__)").strip()).is_relative_to(home)
    program = str(tmp_path / "env/bin/binsight")
    assert "demo" in run(program, "--help")
    (tmp_path / "photos").mkdir()
    for place, part in enumerate(catalogue(0)[:3]):
        catalogue_photo(part, np.random.default_rng(place), size_px=96).save(tmp_path / f"photos/{part.sku}.png")
    model = ["--store", "parts.store", "--model", "binsight:colour-layout", "--json"]
    run(program, "index", "photos", *model)
    asked = sorted((tmp_path / "photos").iterdir())[1]
    (match,) = json.loads(run(program, "search", str(asked), "--k", "1", *model))["matches"]
    assert (match["id"], match["score"]) == (asked.name, pytest.approx(1, abs=1e-3))
