"""Settings: read once from the environment or any mapping, checked, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from binsight.errors import BadSettings


class Settings(BaseSettings):
    """What a process may be told from outside; every name is also an environment variable with the prefix BINSIGHT_."""

    model_config = SettingsConfigDict(env_prefix="BINSIGHT_", frozen=True, extra="ignore")

    device: str = Field("auto", description="auto, cpu or cuda[:n]: where the model runs")
    precision: str = Field("auto", description="auto, fp32 or bf16: what the model computes in")
    batch_size: int = Field(128, ge=1, le=4096, description="pictures encoded and committed together")
    workers: int = Field(2, ge=1, le=64, description="threads that read and decode pictures")
    debug: bool = Field(False, description="show the traceback of an internal error")
    api_keys: str = Field("", description="who may call the API, NAME:SCOPES:SHA256[:PER_SECOND] each, with commas between")
    api_queue: int = Field(64, ge=1, le=4096, description="pictures the API holds at once; one more is answered with 503")
    api_batch: int = Field(16, ge=1, le=256, description="pictures of several requests that pass the model together")
    api_deadline_s: float = Field(30.0, gt=0, le=3600, description="seconds a request may take, its upload included")
    api_drain_s: float = Field(
        0.5, ge=0, le=600, description="seconds between 'not ready' and the last new request, at the end"
    )
    api_max_upload_bytes: int = Field(32 * 2**20, ge=1024, le=2**30, description="the largest body of a request")
    api_max_pixels: int = Field(
        25_000_000, ge=1, le=2**30, description="the largest JPEG the API takes; of other kinds 40% of it"
    )
    api_max_k: int = Field(1000, ge=1, le=100_000, description="the most matches one request may ask for")
    api_cors: str = Field("", description="origins of web pages that may call the API, with commas between; none by default")

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The settings of a mapping such as os.environ (the default). Raises BadSettings, naming the variable."""
        prefix = "BINSIGHT_"
        try:
            if environment is None:
                return cls()  # type: ignore[call-arg]  # fields have defaults, which mypy needs a plugin to see
            names = {prefix + name.upper(): name for name in cls.model_fields}
            return cls(**{names[name]: value for name, value in environment.items() if name in names})  # type: ignore[arg-type]
        except ValidationError as error:
            first = error.errors()[0]
            name = prefix + "_".join(str(part) for part in first["loc"]).upper()
            raise BadSettings(f"{name}: {first['msg']}, got {first['input']!r}") from error
