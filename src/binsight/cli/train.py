"""`binsight train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from binsight.cli.output import print_json, say


def train(
    context: typer.Context,
    data: Annotated[str, typer.Option("--data", metavar="SOURCE", help="Labelled pictures: folder, manifest, s3://…")],
    split: Annotated[Path, typer.Option("--split", metavar="FILE", help="CSV of `binsight data split`.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Model folder to write; the run's log goes to DIR.run.")],
    backbone: Annotated[
        str,
        typer.Option("--backbone", metavar="NAME", help="timm name, local-dir:PATH, binsight_vit_tiny|small, model folder."),
    ] = "resnet50",
    pretrained: Annotated[bool, typer.Option(help="Start from the backbone's weights.")] = True,
    size: Annotated[int, typer.Option("--size", metavar="PX", help="Side of the squashed picture.")] = 224,
    stride: Annotated[
        int, typer.Option("--stride", metavar="PX", help="Pixels between places of the last feature map: 8, 16; 0: as built.")
    ] = 0,
    freeze: Annotated[str, typer.Option("--freeze", metavar="MODE", help="none, backbone or stages:N.")] = "none",
    views: Annotated[
        int, typer.Option("--views", metavar="N", help="Augmented views kept after --freeze stages:N; 0: new ones each step.")
    ] = 0,
    count_head: Annotated[
        str, typer.Option("--count-head", metavar="KIND", help="softmax, corn (ordinal) or none.")
    ] = "softmax",
    max_count: Annotated[int, typer.Option("--max-count", metavar="N", help="Largest count told apart.")] = 9,
    count_spread: Annotated[float, typer.Option("--count-spread", help="Softness of softmax targets; 0: one-hot.")] = 0.45,
    embedding: Annotated[int, typer.Option("--embedding", metavar="DIM", help="Dimension; 0: the pooled features.")] = 256,
    pooling: Annotated[
        str, typer.Option("--pooling", help="mean, or pyramid: the embedding sees several feature maps in a grid.")
    ] = "mean",
    embedding_loss: Annotated[str, typer.Option("--embedding-loss", help="supcon, multisimilarity or whiten.")] = "supcon",
    count_weight: Annotated[float, typer.Option("--count-weight", help="Weight of the count loss; 0: no count head.")] = 1.0,
    label_weight: Annotated[float, typer.Option("--label-weight", help="Weight of the class loss; 0: no class head.")] = 1.0,
    records_weight: Annotated[
        float, typer.Option("--records-weight", help="Of what records say beside (products, sizes, words); 0: not learnt.")
    ] = 0.0,
    embedding_weight: Annotated[float, typer.Option("--embedding-weight", help="Of the embedding loss; 0: none.")] = 0.5,
    epochs: Annotated[int, typer.Option("--epochs", metavar="N", help="Passes over the training pictures.")] = 20,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", help="Pictures a step, over all devices.")] = 64,
    lr: Annotated[float, typer.Option("--lr", help="Highest learning rate.")] = 1e-3,
    layer_decay: Annotated[float, typer.Option("--layer-decay", help="Rate of a stage over that of the next.")] = 1.0,
    weight_decay: Annotated[float, typer.Option("--weight-decay", help="AdamW's.")] = 0.05,
    warmup: Annotated[float, typer.Option("--warmup", help="Share of the steps.")] = 0.1,
    clip: Annotated[float, typer.Option("--clip", help="Largest gradient norm; 0: none.")] = 2.0,
    dropout: Annotated[float, typer.Option("--dropout", help="Before the count and class heads.")] = 0.3,
    drop_path: Annotated[float, typer.Option("--drop-path", help="Stochastic depth.")] = 0.1,
    mixup: Annotated[float, typer.Option("--mixup", help="Share of the steps that mix pictures.")] = 0.5,
    augment: Annotated[float, typer.Option("--augment", help="Strength of the augmentation, 0 … 2.")] = 1.0,
    crop: Annotated[
        float,
        typer.Option("--crop", help="Smallest share of a picture that is kept; below 1 only without a count head."),
    ] = 1.0,
    positives: Annotated[float, typer.Option("--positives", help="Share of pictures that bring a positive along.")] = 0.5,
    ema: Annotated[float, typer.Option("--ema", help="Decay of the averaged weights; 0: none.")] = 0.998,
    keep_best: Annotated[
        str, typer.Option("--keep-best", metavar="HEAD", help="Epoch kept: best of all, count, label or embedding; or last.")
    ] = "all",
    patience: Annotated[
        int, typer.Option("--patience", metavar="N", help="Stop after N epochs without progress; 0: never.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of everything random.")] = 0,
    coverage: Annotated[float, typer.Option("--coverage", help="Share of true counts that intervals hold.")] = 0.9,
    precision: Annotated[str, typer.Option("--precision", help="auto, bf16, fp16 or fp32.")] = "auto",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[int, typer.Option("--devices", metavar="N", help="GPUs, or CPU processes, of each node.")] = 1,
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", help="Machines.")] = 1,
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="Processes that fetch batches.")] = 0,
    compile_: Annotated[bool, typer.Option("--compile", help="torch.compile the network.")] = False,
    threads: Annotated[int, typer.Option("--threads", metavar="N", help="CPU threads; 0: torch's choice.")] = 0,
    profile: Annotated[str, typer.Option("--profile", help="simple, advanced or pytorch.")] = "",
    licence: Annotated[str, typer.Option("--licence", help="Of the trained weights, for the card.")] = "",
    licence_file: Annotated[
        Path | None, typer.Option("--licence-file", metavar="FILE", help="Its text, put beside them.")
    ] = None,
    from_study: Annotated[
        str, typer.Option("--from-study", metavar="STUDY", help="Settings of `binsight tune`: FILE_OR_URL[#NAME]; options win.")
    ] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last whole epoch of the run into --out.")] = False,
    find_lr: Annotated[bool, typer.Option("--find-lr", help="Only look for a learning rate, and print it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> int:
    """Train a model that counts and embeds, and write its folder.

    Every epoch is told on stderr beside the constant answer. Killed at any time, --resume goes on from the last whole epoch
    and ends as an undisturbed run.
    """
    del (
        data,
        split,
        out,
        backbone,
        pretrained,
        size,
        stride,
        freeze,
        views,
        count_head,
        max_count,
        count_spread,
        embedding,
        embedding_loss,
    )
    del count_weight, label_weight, embedding_weight, epochs, batch_size, lr, layer_decay, weight_decay, warmup, clip, dropout
    del (
        drop_path,
        mixup,
        augment,
        crop,
        positives,
        ema,
        keep_best,
        pooling,
        patience,
        seed,
        coverage,
        precision,
        device,
        devices,
        nodes,
        workers,
    )
    del compile_, threads, profile, licence, licence_file, records_weight  # all of them go on as one record
    from binsight.train.config import TrainConfig
    from binsight.train.run import find_lr as search_lr
    from binsight.train.run import train as run
    from binsight.train.run import write_history
    from binsight.train.watch import no_better, told

    values: dict[str, Any] = {
        name.removesuffix("_"): value
        for name, value in context.params.items()
        if name not in ("from_study", "resume", "find_lr", "as_json")
    }
    if from_study:
        from binsight.train.tune import config_from_study, study_address

        sources = {name: context.get_parameter_source(name) for name in context.params}
        given = {name.removesuffix("_") for name, source in sources.items() if source and source.name == "COMMANDLINE"}
        chosen = {name: value for name, value in values.items() if name in given}
        values = config_from_study(*study_address(from_study), chosen)
    config = TrainConfig.checked(values)
    if find_lr:
        found = search_lr(config, say=say)
        if as_json:
            print_json({"lr": found})
        else:
            print(f"--lr {found:.2g}")  # noqa: T201, the command's answer
        return 0
    report = run(config, resume=resume, say=say)
    if not report.fingerprint:  # not the first of many processes
        return 0
    write_history(report, config.run_dir / "report.json")
    if as_json:
        print_json(report.to_json())
    else:
        took = f"{len(report.history)} epochs, {report.images_per_s:.1f} images/s, {report.took_s / 60:.1f} minutes"
        print(f"{report.model}: {', '.join([*told(report.figures), took])}")  # noqa: T201
    if why := no_better(report.figures):
        say(f"note: {why}")
    return 1 if report.refused else 0
