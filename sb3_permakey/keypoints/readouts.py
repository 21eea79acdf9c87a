"""How keypoints are read from a frozen model: one config that travels, and a class for each way to read.

A new readout is a class like `PeaksReadout`, in any module, with `@register_readout` above it: from then on
`ReadoutConfig` takes its name, and so does all that takes a `ReadoutConfig`. Settings of its own are the fields of a
subclass of `ReadoutConfig`, its `config_class`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypedDict, TypeVar

from sb3_permakey.keypoints.layers import MOST_KEYPOINTS
from sb3_permakey.keypoints.model import Frames, FrozenModel, KeypointModel, Keypoints, require_error_maps
from sb3_permakey.keypoints.peaks import CANDIDATES, CENTROID_PX, error_map_peaks, local_contrast
from sb3_permakey.keypoints.shipped import teacher_of
from sb3_permakey.settings import NO_DEFAULT, require_at_least, require_choice, require_positive, require_range

ReadoutName: TypeAlias = Literal["pointnet", "peaks"] | str
"""A key of `READOUTS`; those that come with the package are spelled out for the command line's help."""
DEFAULT = "pointnet"
"""The readout where none is named, of models that have what it reads; of others the first that reads them."""


@dataclass(frozen=True)
class ReadoutConfig:
    """How keypoints are read from a model."""

    readout: Annotated[ReadoutName | None, NO_DEFAULT] = None
    """pointnet: by the model's own PointNet. peaks: the highest peaks of a PermaKey's first error map."""
    num_keypoints: Annotated[int | None, NO_DEFAULT] = None
    """Number of peaks; without it as many as the model has keypoints."""
    min_distance_px: float = 5.0
    """Least distance between two peaks, in pixels."""
    surround_px: Annotated[float | None, NO_DEFAULT] = None
    """Peaks of the map's contrast to a square of this side around, in pixels; without it the map's own."""
    centroid_px: float = CENTROID_PX
    """Side of the square whose weighted mean is a peak's place, in pixels; a larger one is steadier."""
    persistence: Annotated[float | None, NO_DEFAULT] = None
    """How many times as high a peak counts that goes on from the step before, which keeps keypoints from jumping to
    others that are a little higher in one frame; without it, or with 1, each frame's highest are taken."""

    def __post_init__(self) -> None:
        require_choice(tuple(READOUTS), readout=self.readout)
        require_range(1, MOST_KEYPOINTS, num_keypoints=self.num_keypoints)
        require_positive(
            min_distance_px=self.min_distance_px, surround_px=self.surround_px, centroid_px=self.centroid_px
        )
        require_at_least(1, persistence=self.persistence)
        if self.readout is not None:
            for name in self.given():
                if name not in self.in_use():
                    owners = " or ".join(kind.name for kind in READOUTS.values() if name in kind.own_settings)
                    raise ValueError(f"{name} is a setting of {owners} alone: it needs the readout {owners}")

    @property
    def kind(self) -> type[Readout]:
        """The readout's class.

        :raises ValueError: when none of that name is registered
        """
        name = self.readout or DEFAULT
        require_choice(tuple(READOUTS), readout=name)
        return READOUTS[name]

    @property
    def is_named(self) -> bool:
        """Whether it says which readout."""
        return self.readout is not None

    def named(self, name: ReadoutName | None) -> ReadoutConfig:
        """The same with a readout's name where there is none; None: it may stay without."""
        return self if self.readout else replace(self, readout=name)

    def completed(self, model: KeypointModel) -> ReadoutConfig:
        """The readout's own config, with a number of keypoints where there is none: the model's."""
        readable = (kind.name for kind in (READOUTS[DEFAULT], *READOUTS.values()) if kind.reads(model))
        named = self.named(next(readable, DEFAULT))
        config_class = named.kind.config_class
        if not isinstance(named, config_class):
            named = config_class(**asdict(named))
        return replace(named, num_keypoints=self.num_keypoints or model.config.num_keypoints)

    def in_use(self) -> dict[str, Any]:
        """The settings that this readout reads; an agent's file of an earlier release may hold others beside them."""
        read = ("readout", "num_keypoints", *self.kind.own_settings)
        return {name: value for name, value in asdict(self).items() if name in read}

    def without_unused(self) -> ReadoutConfig:
        """The same with nothing but `in_use`."""
        return type(self)(**self.in_use())

    def given(self) -> dict[str, Any]:
        """The settings beside the readout's name that differ from their defaults."""
        return {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default and field.name != "readout"
        }

    def as_flags(self) -> dict[str, Any]:
        """The settings that differ from their defaults, and the name of a readout that takes them all."""
        given = self.given()
        name = self.readout or next((kind.name for kind in READOUTS.values() if given and kind.takes(given)), None)
        return {**({"readout": name} if name else {}), **given}

    def read_by(self, kind: type[Readout]) -> ReadoutConfig:
        """A readout with what is given of its settings."""
        given = self.given()
        return kind.config_class(readout=kind.name, **{name: given[name] for name in given if kind.takes((name,))})


class ReadoutSettings(TypedDict, total=False):
    """The settings of a `ReadoutConfig` beside the readout's name, as keyword arguments."""

    num_keypoints: int | None
    min_distance_px: float
    surround_px: float | None
    centroid_px: float
    persistence: float | None


def readout_config(readout: ReadoutName | ReadoutConfig | None, settings: ReadoutSettings) -> ReadoutConfig:
    """The config that a readout's name, or another config, and settings beside it stand for."""
    if isinstance(readout, ReadoutConfig):
        return replace(readout, **settings)
    return ReadoutConfig(readout).kind.config_class(readout, **settings)


class Readout(ABC):
    """A way to read keypoints from a frozen model.

    :param config: a completed config, with this readout's name
    :param model: the model that will be read
    :param source: what messages call the model
    :raises ValueError: when the model cannot be read like that
    """

    name: ClassVar[str]
    """What a `ReadoutConfig` calls it."""
    label: ClassVar[str]
    """What pictures call its keypoints."""
    config_class: ClassVar[type[ReadoutConfig]] = ReadoutConfig
    """Its config, a subclass where it has settings that no other readout has."""
    own_settings: ClassVar[tuple[str, ...]] = ()
    """The fields of its config that it reads beside the number of keypoints."""
    any_number: ClassVar[bool] = True
    """Whether the number of keypoints may be another than the model's."""
    needs_tracking: ClassVar[bool] = False
    """Whether each frame's keypoints have an order of their own, so that `KeypointTracker` has to follow them."""
    gives_confidence: ClassVar[bool] = False
    """Whether its keypoints have a confidence."""

    def __init__(self, config: ReadoutConfig, model: KeypointModel, source: str) -> None:
        self.config = config

    @classmethod
    def reads(cls, model: KeypointModel) -> bool:
        """Whether the model has what it reads."""
        return True

    @classmethod
    def takes(cls, settings: Iterable[str]) -> bool:
        """Whether settings of these names can be given."""
        return {*settings} <= {*cls.own_settings, *(("num_keypoints",) if cls.any_number else ())}

    @abstractmethod
    def read(self, network: FrozenModel, frames: Frames) -> Keypoints:
        """Keypoints of frames uint8 (B, 84, 84, C), tensors; places and confidences are clamped afterwards.

        Those after the first K are candidates from which a `KeypointTracker` chooses.
        """


READOUTS: dict[str, type[Readout]] = {}
"""The readouts by their names, in the order in which pictures show them."""
Kind = TypeVar("Kind", bound=type[Readout])


def register_readout(kind: Kind) -> Kind:
    """Make a readout known by its name; a decorator of its class."""
    READOUTS[kind.name] = kind
    return kind


@register_readout
class PointNetReadout(Readout):
    """The model's own keypoints; each keeps its part of the scene by itself."""

    name = "pointnet"
    label = "keypoints"
    any_number = False

    def __init__(self, config: ReadoutConfig, model: KeypointModel, source: str) -> None:
        super().__init__(config, model, source)
        if not self.reads(model):
            others = " or ".join(f"readout={kind.name!r}" for kind in READOUTS.values() if kind.reads(model))
            teacher = teacher_of(source)
            has_one = f", and {teacher} has one" if teacher else ""
            raise ValueError(f"{source} has no PointNet: {others} reads its keypoints{has_one}")
        if config.num_keypoints != model.config.num_keypoints:
            others = " or ".join(f"readout={kind.name!r}" for kind in READOUTS.values() if kind.any_number)
            raise ValueError(
                f"{source} has a PointNet of {model.config.num_keypoints} keypoints, not {config.num_keypoints}: "
                f"only {others} can have another number"
            )

    @classmethod
    def reads(cls, model: KeypointModel) -> bool:
        """Whether the model has keypoints of its own."""
        return model.has_pointnet

    def read(self, network: FrozenModel, frames: Frames) -> Keypoints:
        """The network's own keypoints."""
        return network.keypoints(frames)


@register_readout
class PeaksReadout(Readout):
    """The highest peaks of the first layer's error map, or of its contrast, highest first."""

    name = "peaks"
    label = "peaks"
    own_settings = ("min_distance_px", "surround_px", "centroid_px", "persistence")
    needs_tracking = True
    gives_confidence = True

    def __init__(self, config: ReadoutConfig, model: KeypointModel, source: str) -> None:
        super().__init__(config, model, source)
        require_error_maps(model, source)

    @classmethod
    def reads(cls, model: KeypointModel) -> bool:
        """Whether the model has error maps."""
        return bool(model.error_map_layers)

    def read(self, network: FrozenModel, frames: Frames) -> Keypoints:
        """Peaks; their confidences are the values of their cells. Where they persist, more of them than keypoints."""
        config = self.config
        assert config.num_keypoints is not None
        count = config.num_keypoints * (CANDIDATES if (config.persistence or 1) > 1 else 1)
        features, error_map, cell_size = network.features_and_first_map(frames)
        if config.surround_px is not None:
            error_map = local_contrast(error_map, cell_size, config.surround_px)
        centers, heights = error_map_peaks(error_map, cell_size, count, config.min_distance_px, config.centroid_px)
        return Keypoints(centers, network.features_at(centers, features), heights)
