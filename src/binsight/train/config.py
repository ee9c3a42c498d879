"""What a training run is told: one frozen record, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from binsight.errors import BadSettings

CountHead = Literal["softmax", "corn", "none"]


class TrainConfig(BaseModel):
    """Every choice of a run; the same record, data and machine give the same model.

    Weights of losses at 0 leave a head out. A head needs labels in the data: counts, classes, or products and classes for
    the embedding's positives.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(description="source of labelled pictures: folder, manifest or s3://…")
    split: Path = Field(description="CSV of `binsight data split`")
    out: Path = Field(description="model folder to write; checkpoints and logs go to OUT.run beside it")
    backbone: str = Field(
        "resnet50", description="timm name, local-dir:PATH, hf-hub:…, binsight_vit_tiny|small or a model folder"
    )
    pretrained: bool = Field(True, description="start from weights; binsight_vit_* always start from random numbers")
    size: int = Field(224, ge=32, le=1024, description="side of the squashed picture in pixels")
    stride: Literal[0, 8, 16, 32] = Field(
        0,
        description="pixels between neighbours of the last feature map; 0: the backbone's own, mostly 32; finer maps cost time",
    )
    freeze: str = Field("none", pattern=r"^(none|backbone|stages:[1-9]\d{0,3})$", description="what does not learn")

    views: int = Field(
        0, ge=0, le=64,
        description="pictures made of each one that pass the frozen stages:N once and are kept; 0: new ones in every step",
    )  # fmt: skip

    count_head: CountHead = Field("softmax", description="softmax over counts, ordinal (CORN), or none")
    max_count: int = Field(9, ge=1, le=99, description="largest count told apart; one more outcome stands for more")
    count_spread: float = Field(0.45, ge=0, le=10, description="softmax targets e^(-|i-j|/spread); 0 for the one true count")
    embedding: int = Field(256, ge=0, le=4096, description="dimension of the embedding head; 0: the pooled features themselves")
    pooling: Literal["mean", "pyramid"] = Field(
        "mean", description="what the embedding head takes: pooled features, or a grid of several feature maps"
    )
    embedding_loss: Literal["supcon", "multisimilarity", "whiten"] = Field(
        "supcon", description="of pytorch-metric-learning; whiten: no loss, a closed form on a frozen backbone"
    )
    count_weight: float = Field(1.0, ge=0, description="of the count loss")
    label_weight: float = Field(1.0, ge=0, description="of the class loss")
    records_weight: float = Field(
        0.0, ge=0, description="of what the records say beside (products, sizes, words): learnt along, then thrown away; 0: not"
    )
    embedding_weight: float = Field(0.5, ge=0, description="of the embedding loss; 0 leaves the embedding head out")

    epochs: int = Field(20, ge=1, le=10_000, description="passes over the training pictures")
    batch_size: int = Field(64, ge=2, le=65_536, description="pictures a step, over all devices together")
    lr: float = Field(1e-3, gt=0, le=10, description="highest learning rate (AdamW, warm-up, cosine)")
    layer_decay: float = Field(1.0, gt=0, le=1, description="learning rate of each stage over that of the next one")
    weight_decay: float = Field(0.05, ge=0, le=10, description="of matrices and kernels")
    warmup: float = Field(0.1, ge=0, le=0.9, description="share of the steps over which the learning rate rises")
    clip: float = Field(2.0, ge=0, description="largest gradient norm; 0 for none")
    dropout: float = Field(0.3, ge=0, lt=1, description="of the features before the count and class heads")
    drop_path: float = Field(0.1, ge=0, lt=1, description="stochastic depth of the backbone")
    mixup: float = Field(
        0.5, ge=0, le=1, description="share of the steps that mix pictures; those leave the embedding loss out"
    )
    augment: float = Field(1.0, ge=0, le=2, description="strength of colour, blur and geometry; 0 for none")
    crop: float = Field(
        1.0,
        gt=0.01,
        le=1,
        description="smallest share of a picture's area that is kept; below 1 only without a count head",
    )
    positives: float = Field(0.5, ge=0, le=1, description="share of pictures that bring one of their positives into the batch")
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the averaged weights that are kept; 0 for the last weights")
    keep_best: Literal["all", "count", "label", "embedding", "last"] = Field(
        "all", description="whose figure chooses the epoch that is kept: one head's, or the mean of all; last: none does"
    )
    patience: int = Field(0, ge=0, description="epochs without a better score before stopping; 0 never stops")

    seed: int = Field(0, ge=0, lt=2**31, description="of everything random")
    coverage: float = Field(0.9, gt=0, lt=1, description="share of true counts that intervals are to hold")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field("auto", description="auto: bf16 where the hardware has it")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where it runs")
    devices: int = Field(1, ge=1, le=1024, description="GPUs, or processes on the CPU, of each node")
    nodes: int = Field(1, ge=1, le=1024, description="machines (torchrun or SLURM starts them)")
    workers: int = Field(0, ge=0, le=256, description="processes that fetch batches; 0: the training process itself")
    compile: bool = Field(False, description="torch.compile the network")
    threads: int = Field(0, ge=0, le=1024, description="CPU threads of torch; 0: its own choice")
    profile: Literal["", "simple", "advanced", "pytorch"] = Field("", description="Lightning profiler")
    licence: str = Field("", max_length=200, description="of the trained weights, for the model's card")
    licence_file: Path | None = Field(None, description="text that is written beside the model as LICENSE")

    @field_validator("licence")
    @classmethod
    def _one_line(cls, licence: str) -> str:
        if not licence.isprintable():
            raise ValueError("want one line")
        return licence

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Self:
        """The record of these values. Raises BadSettings, naming the first that is out of range."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "settings"
            raise BadSettings(f"--{name.replace('_', '-')}: {first['msg']}, got {first['input']!r}") from error

    @property
    def run_dir(self) -> Path:
        """Checkpoints, logs and history of the run."""
        return self.out.with_name(f"{self.out.name}.run")

    def to_json(self) -> dict[str, Any]:  # JSON values
        return self.model_dump(mode="json")
