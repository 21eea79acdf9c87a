"""The chain from features to a PermaKey's keypoints, which the model in training and the frozen one share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Generic, TypeVar

from torch import Tensor

from sb3_permakey.keypoints.layers import IMAGE_SIZE
from sb3_permakey.keypoints.lspn import normalise_maps, stack_error_maps
from sb3_permakey.keypoints.model import FirstErrorMap, Keypoints, features_at

if TYPE_CHECKING:
    from sb3_permakey.keypoints.permakey import PermaKeyConfig

Seen = TypeVar("Seen")
"""What is looked at: images (B, C, 84, 84) in [0, 1] in training, frames uint8 (B, 84, 84, C) in use."""


class ErrorMapChain(ABC, Generic[Seen]):
    """Features, the errors of their patches, error maps, the PointNet's keypoints, the features there.

    Those who have it say how they make the features, the errors and the PointNet's keypoints.
    """

    config: PermaKeyConfig
    cell_sizes: list[int]
    """Side of each LSPN layer's patches in the image, in pixels."""

    @abstractmethod
    def feature_maps(self, seen: Seen) -> list[Tensor]:
        """Maps (B, C, h, w) of the encoder's layers up to the last one with an LSPN."""

    @abstractmethod
    def relative_errors(self, indices: Iterable[int], seen: Seen, maps: list[Tensor]) -> list[Tensor]:
        """Errors (B, h, w) of the patches, relative to their activations, of some of the LSPN's layers by their index.

        :param maps: what `feature_maps` gave
        """

    @abstractmethod
    def centers(self, maps: Tensor) -> Tensor:
        """The PointNet's keypoints (B, K, 2) of stacked maps (B, M, 84, 84)."""

    def keypoints(self, seen: Seen) -> Keypoints:
        """The PointNet's keypoints, with the last LSPN layer's features."""
        maps = self.feature_maps(seen)
        centers = self.centers(self.maps_for_pointnet(self._error_maps(self._all, seen, maps)))
        return Keypoints(centers, features_at(centers, maps[-1], self.config.window_std))

    def features(self, seen: Seen) -> Tensor:
        """The last LSPN layer's features (B, C, h, w)."""
        return self.feature_maps(seen)[-1]

    def features_and_first_map(self, seen: Seen) -> FirstErrorMap:
        """The last LSPN layer's features, and the first one's error map."""
        maps = self.feature_maps(seen)
        (error_map,) = self._error_maps((0,), seen, maps)
        return FirstErrorMap(maps[-1], error_map, self.cell_sizes[0])

    def error_maps(self, seen: Seen) -> Tensor:
        """Error maps at the images' size: (B, M, 84, 84) in [0, 1]."""
        return self.stack_maps(self.layer_error_maps(seen))

    def layer_error_maps(self, seen: Seen) -> list[Tensor]:
        """Each LSPN layer's error map, one value a patch, scaled to [0, 1]: M maps (B, h_m, w_m)."""
        return self._error_maps(self._all, seen, self.feature_maps(seen))

    def unscaled_error_maps(self, seen: Seen) -> list[Tensor]:
        """`layer_error_maps` before they are scaled."""
        return self.relative_errors(self._all, seen, self.feature_maps(seen))

    def stack_maps(self, layer_maps: list[Tensor]) -> Tensor:
        """Layers' error maps resized to the image and stacked: (B, M, 84, 84)."""
        return stack_error_maps(layer_maps, self.cell_sizes, IMAGE_SIZE)

    def maps_for_pointnet(self, layer_maps: list[Tensor]) -> Tensor:
        """What the PointNet sees, and in training rebuilds, of error maps as `layer_error_maps` gives them."""
        return self.stack_maps([layer_map.pow(self.config.map_power) for layer_map in layer_maps])

    @property
    def _all(self) -> range:
        return range(len(self.config.layers))

    def _error_maps(self, indices: Iterable[int], seen: Seen, maps: list[Tensor]) -> list[Tensor]:
        return [normalise_maps(errors) for errors in self.relative_errors(indices, seen, maps)]
