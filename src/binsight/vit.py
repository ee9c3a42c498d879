"""Our own vision transformer, made to learn from thousands of pictures rather than millions; registered with timm.

A plain ViT (Dosovitskiy et al. 2020, arXiv:2010.11929) knows nothing of neighbourhood and has to see a great many pictures to
learn it. Here it is built in, with parts that each cost little:

- a convolutional stem in place of the patch embedding: four 3×3 convolutions of stride 2, then 1×1 (Xiao et al. 2021,
  "Early Convolutions Help Transformers See Better", arXiv:2106.14881);
- a depthwise 3×3 convolution over the grid of tokens inside each feed-forward block (Li et al. 2021, LocalViT,
  arXiv:2104.05707; Yuan et al. 2021, CeiT, arXiv:2103.11816), here beside an identity;
- fixed sine-cosine positions and average pooling instead of a class token (Beyer et al. 2022, "Better plain ViT baselines",
  arXiv:2205.01580), so that any size divisible by 16 works with the same weights;
- normalised queries and keys (Dehghani et al. 2023, arXiv:2302.05442, section 2), LayerScale (Touvron et al. 2021, CaiT,
  arXiv:2103.17239) and stochastic depth (Huang et al. 2016, arXiv:1603.09382), which keep training steady and regularise.

Registered: `binsight_vit_tiny` (192 wide, 12 deep, 5.7 M parameters) and `binsight_vit_small` (384, 11, 20.7 M).
"""

from __future__ import annotations

from typing import Any, final

import torch
from timm.layers import DropPath, trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

from binsight.preprocess import IMAGENET_MEAN, IMAGENET_STD

STRIDE = 16  # pixels a token stands for, in each direction
__all__ = ["STRIDE", "BinsightViT"]


@final
class BinsightViT(nn.Module):
    """Normalised pixels float (n, 3, h, w) in, with h and w divisible by 16; (n, width) out, or (n, num_classes).

    drop_path_rate: of the last block; it grows evenly from 0 at the first. drop_rate: before the classifier.
    The interface is the part of timm's that binsight and timm's own loaders use.
    """

    def __init__(
        self,
        *,
        width: int = 192,
        depth: int = 12,
        heads: int = 3,
        mlp_ratio: int = 4,
        layer_scale: float = 0.1,  # as CaiT for up to 18 blocks
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        if width % heads or width % 8:
            raise ValueError(f"want a width divisible by 8 and by the {heads} heads, got {width}")
        if global_pool != "avg":
            raise ValueError(f"want global_pool 'avg', got {global_pool!r}")
        self.num_features = self.head_hidden_size = width
        self.num_classes = num_classes
        self.grad_checkpointing = False
        self.stem = _stem(in_chans, width)
        rates = [drop_path_rate * number / max(1, depth - 1) for number in range(depth)]
        self.blocks = nn.ModuleList(
            _Block(width, heads, mlp_ratio * width, layer_scale=layer_scale, drop_path=rate) for rate in rates
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head_drop = nn.Dropout(drop_rate)
        self.head: nn.Module
        self.apply(_initialise)
        self.reset_classifier(num_classes)

    def forward_features(self, planes: Tensor) -> Tensor:
        """The grid of tokens after the last block: (n, width, h/16, w/16), before the norm."""
        if planes.shape[-2] % STRIDE or planes.shape[-1] % STRIDE:
            raise ValueError(f"want a height and width divisible by {STRIDE}, got {tuple(planes.shape[-2:])}")
        grid: Tensor = self.stem(planes)  # (n, width, rows, columns)
        rows, columns = grid.shape[-2:]
        tokens = grid.flatten(2).transpose(1, 2)  # (n, tokens, width)
        tokens = tokens + positions(rows, columns, tokens.shape[-1], tokens.device).to(tokens.dtype)
        for block in self.blocks:
            if self.grad_checkpointing and self.training:
                tokens = torch.utils.checkpoint.checkpoint(block, tokens, rows, columns, use_reentrant=False)
            else:
                tokens = block(tokens, rows, columns)
        return tokens.transpose(1, 2).reshape(grid.shape)

    def forward_head(self, grid: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.norm(grid.mean(dim=(2, 3)))  # (n, width)
        if pre_logits:
            return pooled  # type: ignore[no-any-return]  # nn.Module's call is untyped
        return self.head(self.head_drop(pooled))  # type: ignore[no-any-return]

    def forward(self, planes: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(planes))

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Another number of classes; 0 for none: the pooled features come out."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"want global_pool 'avg', got {global_pool!r}")
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head.apply(_initialise)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute each block again in the backward pass rather than keep what it computed: slower, in less memory."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which stage a weight belongs to, as timm asks; coarse or not, a block is a stage."""
        del coarse
        return {"stem": r"^stem", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}


def positions(rows: int, columns: int, width: int, device: torch.device | None = None) -> Tensor:
    """Where each token lies: float32 (rows · columns, width), row-major.

    A quarter of the width each: sine and cosine of the column, sine and cosine of the row, at frequencies from 1 down to
    1/10,000 a token (Beyer et al. 2022, section 2, after Chen, Xie and He 2021, MoCo v3).
    """
    steps = torch.arange(width // 4, device=device, dtype=torch.float32) / (width // 4 - 1)
    frequencies = 10_000.0**-steps  # (width / 4,)
    across = torch.arange(columns, device=device, dtype=torch.float32)[:, None] * frequencies  # (columns, width / 4)
    down = torch.arange(rows, device=device, dtype=torch.float32)[:, None] * frequencies
    across_all, down_all = across.repeat(rows, 1), down.repeat_interleave(columns, dim=0)  # (rows · columns, width / 4)
    return torch.cat([across_all.sin(), across_all.cos(), down_all.sin(), down_all.cos()], dim=1)


class _Block(nn.Module):
    """Attention, then the feed-forward with its look at the eight neighbours; each added to what came, scaled."""

    def __init__(self, width: int, heads: int, hidden: int, *, layer_scale: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = _Attention(width, heads)
        self.scale1 = nn.Parameter(torch.full((width,), layer_scale))
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _LocalMlp(width, hidden)
        self.scale2 = nn.Parameter(torch.full((width,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, rows: int, columns: int) -> Tensor:  # (n, tokens, width) → the same
        tokens = tokens + self.drop_path(self.scale1 * self.attention(self.norm1(tokens)))
        mixed: Tensor = tokens + self.drop_path(self.scale2 * self.mlp(self.norm2(tokens), rows, columns))
        return mixed


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // heads, eps=1e-6)
        self.k_norm = nn.LayerNorm(width // heads, eps=1e-6)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        n, length, width = tokens.shape
        split: Tensor = self.qkv(tokens).reshape(n, length, 3, self.heads, width // self.heads)
        qkv = split.permute(2, 0, 3, 1, 4)  # (3, n, heads, tokens, width / heads)
        query, key, value = qkv.unbind(0)
        mixed = functional.scaled_dot_product_attention(self.q_norm(query).to(value), self.k_norm(key).to(value), value)
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(n, length, width))  # (n, tokens, width)
        return projected


class _LocalMlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.local = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        hidden = functional.gelu(self.fc1(tokens))  # (n, tokens, hidden)
        grid = hidden.transpose(1, 2).reshape(hidden.shape[0], -1, rows, columns)  # (n, hidden, rows, columns)
        local = self.local(grid).flatten(2).transpose(1, 2)
        out: Tensor = self.fc2(functional.gelu(hidden + local))
        return out


def _stem(in_chans: int, width: int) -> nn.Sequential:
    """Pixels to tokens: each convolution halves the sides and doubles the channels."""
    layers: list[nn.Module] = []
    for out in (width // 8, width // 4, width // 2, width):
        layers += [nn.Conv2d(in_chans, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out), nn.GELU()]
        in_chans = out
    return nn.Sequential(*layers, nn.Conv2d(width, width, 1))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d) and module.groups > 1:  # the look at the neighbours starts as hardly any
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # it has one
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _cfg() -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "interpolation": "bicubic",
        "fixed_input_size": False,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "first_conv": "stem.0",
        "classifier": "head",
        "license": "apache-2.0",
    }


default_cfgs = generate_default_cfgs({"binsight_vit_tiny": _cfg(), "binsight_vit_small": _cfg()})


@register_model  # type: ignore[untyped-decorator]  # timm is untyped
def binsight_vit_tiny(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return _build("binsight_vit_tiny", pretrained, {"width": 192, "depth": 12, "heads": 3, **kwargs})


@register_model  # type: ignore[untyped-decorator]  # timm is untyped
def binsight_vit_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return _build("binsight_vit_small", pretrained, {"width": 384, "depth": 11, "heads": 6, **kwargs})


def _build(variant: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    built: nn.Module = build_model_with_cfg(BinsightViT, variant, pretrained, **arguments)
    return built
