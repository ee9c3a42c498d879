"""Checkpoints that are whole or not there: a process killed while it saves leaves the last one as it was."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, final

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO


@final
class AtomicCheckpoints(TorchCheckpointIO):
    """Writes beside the place and renames. Lightning's own writes in the system's folder for temporary files, and its move
    from there is a copy where that is another file system.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,  # Lightning's
    ) -> None:
        """Raises OSError when it cannot be written; what was there stays."""
        del storage_options
        buffer = io.BytesIO()  # torch.save into a file on a full disk raises no OSError
        torch.save(checkpoint, buffer)
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}.tmp")
        try:
            with beside.open("wb") as out:
                out.write(buffer.getbuffer())
                out.flush()
                os.fsync(out.fileno())
            beside.replace(file)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
