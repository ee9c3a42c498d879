"""Certificates for tests: an authority of our own, and a server's for 127.0.0.1, made by the openssl command."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificates:
    """Files in PEM. other_ca: an authority that signed nothing here."""

    ca: Path
    cert: Path
    key: Path
    other_ca: Path


def make_certificates(folder: Path) -> Certificates:
    """Skips the test where there is no openssl; Debian's package has that name."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl")
    folder.mkdir()
    new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    for name in ("ca", "other"):
        _openssl(folder, f"req -x509 {new} -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem")
    _openssl(folder, f"req {new} -subj /CN=127.0.0.1 -keyout server.key -out server.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    _openssl(folder, "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem")
    return Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key", folder / "other.pem")


def _openssl(folder: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True)  # noqa: S607, the one in PATH
