"""PermaKey: the three modules together (Gopalakrishnan, van Steenkiste, Schmidhuber, ICLR 2021)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn

from sb3_permakey.keypoints.chain import ErrorMapChain
from sb3_permakey.keypoints.folded import FoldedPermaKey
from sb3_permakey.keypoints.layers import ENCODER, IMAGE_SIZE, MOST_KEYPOINTS, ConvBlock, Softmax
from sb3_permakey.keypoints.lspn import LSPN, error_map, lspn_loss, normalise_maps, patch_errors, to_patches
from sb3_permakey.keypoints.model import KeypointModel, register_model
from sb3_permakey.keypoints.pointnet import PointNet, pointnet_loss
from sb3_permakey.keypoints.vae import VAE, kl_divergence, reconstruction_loss
from sb3_permakey.settings import require_at_least, require_choice, require_positive, require_range

MOST_LATENTS = 4096
"""With these the layers to and from the latents take 2.8 GB."""


@dataclass(frozen=True)
class PermaKeyConfig:
    """Settings of the method, with the paper's values."""

    num_keypoints: int = 7
    """K, number of keypoints (paper: BattleZone 8, Seaquest 10, MsPacman 7, Frostbite 20)."""
    layers: tuple[int, ...] = (0, 1)
    """Encoder layers whose features are predicted from their surroundings, of 0 to 3."""
    patch_size: int = 2
    """Side of a patch, in cells of a layer's map."""
    window_std: float = 0.1
    """Width of a keypoint's window exp(-distance^2 / std^2), where an image's side is 2."""
    image_channels: int = 3
    """Channels of the images."""
    latent_dim: int = 32
    """Dimensions of the VAE's latent Gaussian."""
    kl_weight: float = 1.0
    """Weight of the KL term beside the reconstruction, both summed as in equation 1."""
    softmax: Softmax = "axes"
    """The PointNet's soft argmax: over each axis' average (paper), or over the whole map."""
    map_power: float = 1.0
    """Exponent of the error maps that the PointNet rebuilds; 0.5 lights up places that are dim."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        require_range(1, MOST_KEYPOINTS, num_keypoints=self.num_keypoints)
        require_at_least(1, image_channels=self.image_channels)
        require_range(1, MOST_LATENTS, latent_dim=self.latent_dim)
        if not self.layers or any(not 0 <= layer < len(ENCODER.filters) for layer in self.layers):
            raise ValueError(f"layers must name encoder layers of 0 to {len(ENCODER.filters) - 1}, not {self.layers}")
        if list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"layers must be ascending and without repeats, not {self.layers}")
        # Of smaller maps no patch has all of its eight neighbours.
        require_range(1, ENCODER.map_sizes()[self.layers[-1]] // 3, patch_size=self.patch_size)
        require_positive(window_std=self.window_std, map_power=self.map_power)
        require_choice(get_args(Softmax), softmax=self.softmax)
        require_at_least(0, kl_weight=self.kl_weight)


class PermaKeyLosses(NamedTuple):
    """The losses of one batch, scalars. Each reaches its own module alone."""

    reconstruction: Tensor
    """Reconstruction part of the negative ELBO, nats per image (equation 1)."""
    kl: Tensor
    """KL part of the negative ELBO, nats per image (equation 1)."""
    lspn: Tensor
    """Prediction error, mean over patches and channels, summed over layers (equation 2)."""
    pointnet: Tensor
    """Error of the reconstructed error maps (equation 3); zero where the PointNet was left out."""


@register_model
class PermaKey(ErrorMapChain[Tensor], KeypointModel):
    """Keypoints where local prediction fails.

    :param config: settings, the paper's by default
    """

    kind = "permakey"
    config_class = PermaKeyConfig
    streams = True
    config: PermaKeyConfig

    def __init__(self, config: PermaKeyConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PermaKeyConfig()
        self.vae = VAE(config.image_channels, config.latent_dim)
        self.lspns = nn.ModuleList(LSPN(ENCODER.filters[layer], config.patch_size) for layer in config.layers)
        self.pointnet = PointNet(len(config.layers), config.num_keypoints, config.softmax)
        sizes = ENCODER.map_sizes()
        self.cell_sizes = [config.patch_size * IMAGE_SIZE // sizes[layer] for layer in config.layers]
        self.error_map_sizes = [-(-sizes[layer] // config.patch_size) for layer in config.layers]
        self.feature_channels = ENCODER.filters[config.layers[-1]]
        self.feature_size = sizes[config.layers[-1]]
        self.error_map_layers = config.layers

    def losses(
        self, images: Tensor, noise: Tensor | None = None, *, with_pointnet: bool = True, lspn_stride: int = 1
    ) -> PermaKeyLosses:
        """Losses of a batch; no gradient goes from one module to another (appendix A.2.1).

        :param images: (B, C, 84, 84) in [0, 1]
        :param noise: (B, latent_dim), standard normal; None decodes the latents' means
        :param with_pointnet: False leaves the PointNet out (the first stage of the staged schedule)
        :param lspn_stride: the LSPN learns from every so many-th image alone; the PointNet still sees all error maps
        """
        vae = self.vae(images, noise)
        feature_maps = [features.detach() for features in vae.feature_maps]
        learns = torch.arange(0, len(images), lspn_stride, device=images.device)
        errors, maps = self._predict_patches(
            feature_maps if lspn_stride == 1 else [features[learns] for features in feature_maps]
        )
        pointnet = torch.zeros((), device=images.device)
        if with_pointnet:
            maps = [layer_map.detach() for layer_map in maps]
            if lspn_stride > 1 and len(images) > 1:
                # Not by a mask, whose number of images a GPU's host would wait for.
                passed_over = torch.arange(len(images) - len(learns), device=images.device)
                passed_over += passed_over.div(lspn_stride - 1, rounding_mode="floor") + 1
                with torch.no_grad():
                    _, others = self._predict_patches([features[passed_over] for features in feature_maps])
                maps = [torch.cat(pair) for pair in zip(maps, others, strict=True)]
            pointnet = self.pointnet_loss(maps)
        return PermaKeyLosses(
            reconstruction_loss(vae.reconstruction, images),
            kl_divergence(vae.latent_mean, vae.latent_scale),
            torch.stack([lspn_loss(layer_errors) for layer_errors in errors]).sum(),
            pointnet,
        )

    def total_loss(self, losses: PermaKeyLosses) -> Tensor:
        """The sum that is minimised; its parts share no parameters but reconstruction and KL."""
        return losses.reconstruction + self.config.kl_weight * losses.kl + losses.lspn + losses.pointnet

    def stopping_loss(self, losses: PermaKeyLosses) -> Tensor:
        """LSPN + PointNet (appendix A.2.1)."""
        return losses.lspn + losses.pointnet

    def feature_blocks(self) -> list[ConvBlock]:
        """The encoder up to the last LSPN layer."""
        blocks = self.vae.encoder.blocks[: self.config.layers[-1] + 1]
        return [block for block in blocks if isinstance(block, ConvBlock)]

    def pointnet_loss(self, layer_maps: list[Tensor]) -> Tensor:
        """Equation 3 on error maps as `layer_error_maps` gives them."""
        maps = self.maps_for_pointnet(layer_maps)
        return pointnet_loss(self.pointnet(maps), maps, self.config.window_std)

    def frozen(self, precision: torch.dtype, *, streaming: bool) -> FoldedPermaKey:
        """The folded network."""
        return FoldedPermaKey(self, precision, streaming=streaming)

    @property
    def training_only(self) -> tuple[str, ...]:
        """The VAE's latents and decoder, and the encoder's layers after the last LSPN."""
        unused_layers = range(self.config.layers[-1] + 1, len(ENCODER.filters))
        unused = tuple(f"vae.encoder.blocks.{layer}." for layer in unused_layers)
        return ("vae.to_latent.", "vae.from_latent.", "vae.decoder.", *unused)

    def take_over(self, source: KeypointModel) -> None:
        """Take over the VAE and the LSPN of a model that differs in its PointNet alone."""
        of_pointnet = ("num_keypoints", "window_std", "softmax", "map_power")
        if not isinstance(source, PermaKey) or source.config != replace(
            self.config, **{name: getattr(source.config, name) for name in of_pointnet}
        ):
            raise ValueError(f"holds a model with {source.config}; its VAE and LSPN do not fit {self.config}")
        self.vae.load_state_dict(source.vae.state_dict())
        self.lspns.load_state_dict(source.lspns.state_dict())
        self.for_detection_only = source.for_detection_only

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Maps of images (B, C, 84, 84) in [0, 1]."""
        return self.vae.encoder(images, depth=self.config.layers[-1] + 1)

    def relative_errors(self, indices: Iterable[int], images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """Errors of all patches."""
        return [self._layer_errors(maps, index)[1] for index in indices]

    def centers(self, maps: Tensor) -> Tensor:
        """The PointNet."""
        return self.pointnet(maps)

    def _predict_patches(self, feature_maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Patch errors and scaled error maps of each LSPN layer."""
        found = [self._layer_errors(feature_maps, index) for index in range(len(self.lspns))]
        return [errors for errors, _ in found], [normalise_maps(relative) for _, relative in found]

    def _layer_errors(self, feature_maps: list[Tensor], index: int) -> tuple[Tensor, Tensor]:
        """Errors of one LSPN layer's patches, and the same relative to their activations."""
        patches = to_patches(feature_maps[self.config.layers[index]], self.config.patch_size)
        errors = patch_errors(self.lspns[index](patches), patches)
        return errors, error_map(errors, patches)
