"""The frozen encoder layers of a keypoint model, BatchNorm folded into the convolutions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sb3_permakey.keypoints.layers import ConvBlock, TrunkShape, same_conv2d
from sb3_permakey.keypoints.model import KeypointModel


@dataclass(frozen=True, eq=False)
class TrunkWeights:
    """The layers up to the last LSPN layer, as arrays that pickle small and load anywhere."""

    kernels: tuple[np.ndarray, ...]
    """Convolution weights (out, in, k, k), float32."""
    biases: tuple[np.ndarray, ...]
    """(out,), float32."""
    strides: tuple[int, ...]
    map_size: int
    """Height and width of the last layer's map for 84x84 images."""
    window_std: float
    """Width of the keypoints' windows."""

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return self.kernels[0].shape[1]

    @property
    def channels(self) -> int:
        """Channels of the last layer's map."""
        return len(self.biases[-1])


def fold_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of each channel, (C,) float32, that a BatchNorm in evaluation mode amounts to."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight.float() / torch.sqrt(norm.running_var.float() + norm.eps)
    return scale.detach(), (norm.bias.float() - norm.running_mean.float() * scale).detach()


def fold_block(block: ConvBlock) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that equals a ConvBlock's convolution and BatchNorm in evaluation mode."""
    scale, shift = fold_norm(block.norm)
    return block.conv.weight.detach().float() * scale.view(-1, 1, 1, 1), shift


def fold_trunk(model: KeypointModel) -> TrunkWeights:
    """The frozen layers of a keypoint model that make its features."""
    blocks = model.feature_blocks()
    folded = [fold_block(block) for block in blocks]
    return TrunkWeights(
        kernels=tuple(weight.cpu().contiguous().numpy() for weight, _ in folded),
        biases=tuple(bias.cpu().numpy() for _, bias in folded),
        strides=tuple(block.stride for block in blocks),
        map_size=model.feature_size,
        window_std=model.config.window_std,
    )


class FoldedConvolutions(nn.Module):
    """Convolutions with bias and ReLU, TensorFlow's "same" padding; nothing in them learns.

    :param layers: weight (out, in, k, k), bias (out,) and stride of each
    """

    def __init__(self, layers: Iterable[tuple[Tensor, Tensor, int]]) -> None:
        super().__init__()
        weights, biases, strides = zip(*layers, strict=True)
        self.strides: tuple[int, ...] = strides
        for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            self.register_buffer(f"kernel_{index}", weight.contiguous(memory_format=torch.channels_last))
            self.register_buffer(f"bias_{index}", bias)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.buffers()).device

    @property
    def shape(self) -> TrunkShape:
        """Kernel sizes, filters and strides."""
        weights = [weight for weight, _, _ in self.layers()]
        kernels, filters = (tuple(weight.shape[axis] for weight in weights) for axis in (-1, 0))
        return TrunkShape(kernels, filters, self.strides)

    def layers(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Weight, bias and stride of each."""
        tensors = [tensor for tensor in self._buffers.values() if tensor is not None]
        return zip(tensors[::2], tensors[1::2], self.strides, strict=True)

    @torch.no_grad()
    def maps(self, images: Tensor) -> list[Tensor]:
        """Every layer's map of images (B, C, H, W), first layer first."""
        maps = []
        for kernel, bias, stride in self.layers():
            images = same_conv2d(images, kernel, bias, stride).relu_()
            maps.append(images)
        return maps


def fold_blocks(blocks: Iterable[nn.Module]) -> FoldedConvolutions:
    """The convolutions that equal a stack of ConvBlocks."""
    return FoldedConvolutions((*fold_block(block), block.stride) for block in blocks if isinstance(block, ConvBlock))


class FrozenTrunk(FoldedConvolutions):
    """Features of images, (B, C, 84, 84) in [0, 1] -> (B, channels, map_size, map_size); nothing in it learns.

    :param weights: folded layers
    """

    def __init__(self, weights: TrunkWeights) -> None:
        kernels, biases = (
            [torch.from_numpy(array.copy()) for array in arrays] for arrays in (weights.kernels, weights.biases)
        )
        super().__init__(zip(kernels, biases, weights.strides, strict=True))

    def forward(self, images: Tensor) -> Tensor:
        """Features of the last layer."""
        return self.maps(images)[-1]
