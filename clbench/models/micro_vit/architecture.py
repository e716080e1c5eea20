"""The network of micro-vit: a convolutional stem in front of timm's VisionTransformer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from ...torchvision_schemas import prepare

SIZE = 32  # pixels a side
STRIDE = 8  # pixels a token, so 4 x 4 tokens
WIDTH, DEPTH, HEADS = 192, 5, 3
STEM = ((64, 2), (64, 1), (128, 2), (128, 1), (WIDTH, 2))  # channels and stride of each 3x3 convolution


class ConvStem(nn.Module):
    """Five 3x3 convolutions in place of a linear patch embedding (Xiao et al., NeurIPS 2021, "Early Convolutions").

    float [B, C, 32, 32] to tokens [B, 16, 192]. `normalise` puts a batch normalisation behind each convolution,
    which pretraining uses and `fold` then takes into the convolutions: what is shipped has none, so that no
    running statistic drifts along a stream. Takes timm's keyword arguments of a patch embedding.
    """

    def __init__(
        self,
        img_size: int = SIZE,
        patch_size: int = STRIDE,
        in_chans: int = 3,
        embed_dim: int = WIDTH,
        normalise: bool = False,
        **unused: Any,
    ) -> None:
        super().__init__()
        self.img_size, self.patch_size = (img_size, img_size), (patch_size, patch_size)
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        channels = [in_chans, *(out for out, _ in STEM[:-1]), embed_dim]
        layers: list[nn.Module] = []
        for (n_in, n_out), (_, stride) in zip(pairwise(channels), STEM, strict=True):
            layers.append(nn.Conv2d(n_in, n_out, 3, stride, padding=1))
            if normalise:
                layers.append(nn.BatchNorm2d(n_out))
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).flatten(2).transpose(1, 2)

    def fold(self) -> None:
        """Take each batch normalisation, with its running statistics, into the convolution before it."""
        from torch.nn.utils.fusion import fuse_conv_bn_eval

        self.eval()
        folded: list[nn.Module] = []
        for layer in self.layers:
            if isinstance(layer, nn.BatchNorm2d):
                folded[-1] = fuse_conv_bn_eval(folded[-1], layer)  # type: ignore[type-var]
            else:
                folded.append(layer)
        self.layers = nn.Sequential(*folded)


def micro_vit(channels: int = 3, *, classes: int = 0, normalise: bool = False, drop_path: float = 0.0) -> nn.Module:
    """A timm VisionTransformer, untrained: float [B, channels, 32, 32] to features [B, 192] (mean of the tokens,
    layer-normalised), or to scores [B, classes]."""
    prepare()
    from functools import partial

    from timm.models.vision_transformer import VisionTransformer

    stem: Any = partial(ConvStem, normalise=normalise)
    return VisionTransformer(
        img_size=SIZE,
        patch_size=STRIDE,
        in_chans=channels,
        num_classes=classes,
        global_pool="avg",
        class_token=False,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        embed_layer=stem,
        drop_path_rate=drop_path,
    )
