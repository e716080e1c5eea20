"""Domain streams made of one set: every image turned, or its pixels rearranged."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import numpy as np

from clbench.config import setting
from clbench.errors import UserError
from clbench.stream import Training

from .domain_incremental import DomainIncremental, Domains, side_by_side
from .image_config import ImageConfig
from .image_data import Rows, read_images
from .row_keys import mixed, salt
from .warping import permuted, rotated

DIGITS_TRAINING = Training(optimizer="sgd", lr=0.05, batch_size=16, epochs=3)
MNIST_TRAINING = Training(optimizer="sgd", lr=0.03, batch_size=10, epochs=1)


class Warped(DomainIncremental):
    """Every domain holds all images of one set, under a transform of its own."""

    set_name: ClassVar[str]
    channels: ClassVar[Literal[1, 3] | None] = 1
    default_model: ClassVar[str] = "mlp"
    feature_model: ClassVar[str] = "pixels"

    @abstractmethod
    def warps(self) -> list[str]:
        """The names of the domains; a name says the whole transform."""

    @abstractmethod
    def warp(self, x: np.ndarray, domain: int) -> np.ndarray:
        """Images of the domain: uint8 [N, C, H, W] to the same."""

    def domains(self) -> Domains:
        c = self.config
        data = read_images(self.set_name, self.data_root, c.size, c.channels or self.channels, c.resize)
        names = self.warps()
        train = [self._warped(data.train, name, place, "train") for place, name in enumerate(names)]
        test = [self._warped(data.test, name, place, "test") for place, name in enumerate(names)]
        identity = {"data": data.fingerprint, "warps": names}
        return Domains(data.class_names, *side_by_side(names, train, test), [], data.statistics, identity)

    def _warped(self, rows: Rows, name: str, domain: int, split: Literal["train", "test"]) -> Rows:
        """The rows under the domain's transform, with keys of their own; only those that the limits keep."""
        keys = mixed(rows.keys ^ salt(name))
        kept = self.limited(Rows(rows.x, rows.y, keys), split, np.arange(len(keys)))
        return Rows(self.warp(rows.x[kept], domain), rows.y[kept], keys[kept])


class Rotated(Warped):
    """Every domain is turned by an angle of its own, anticlockwise."""

    class Config(ImageConfig):
        """Which angles."""

        tasks: int = setting(
            5, "domains, at angles evenly spaced from 0 up to `span`, which is left out", source="clbench", ge=1
        )
        span: float = setting(
            180.0, "range of the angles in degrees", source="Lopez-Paz and Ranzato, 2017", gt=0, le=360
        )
        angles: list[float] | None = setting(
            None, "the angles themselves in degrees, instead of tasks and span", source="unset"
        )

    def angles(self) -> list[float]:
        """Degrees, one a domain."""
        c = self.config
        angles = [i * c.span / c.tasks for i in range(c.tasks)] if c.angles is None else c.angles
        if not angles:
            raise UserError(f"{self.name}: angles=[] names no domain; give one angle a task, as in angles=[0,30,60]")
        if len({angle % 360 for angle in angles}) < len(angles):
            raise UserError(f"{self.name}: angles={angles} names an angle twice; each domain needs its own")
        return angles

    def warps(self) -> list[str]:
        return [f"rotated-{angle:.10g}" for angle in self.angles()]

    def warp(self, x: np.ndarray, domain: int) -> np.ndarray:
        return rotated(x, self.angles()[domain])


class Permuted(Warped):
    """Every domain has its pixels rearranged by a fixed permutation (Goodfellow et al., 2014); the first keeps them."""

    class Config(ImageConfig):
        """Which permutations."""

        tasks: int = setting(5, "domains; the first keeps the pixels in place", source="clbench", ge=1)
        permutation_seed: int = setting(
            0, "which permutations the other domains have", source="clbench", ge=0, lt=2**32
        )

    def warps(self) -> list[str]:
        c = self.config
        return ["permuted-0", *(f"permuted-{c.permutation_seed}.{i}" for i in range(1, c.tasks))]

    def warp(self, x: np.ndarray, domain: int) -> np.ndarray:
        return permuted(x, domain, self.config.permutation_seed)


class RotatedDigits(Rotated):
    """Scikit-learn's digits at 5 angles from 0 to 144 degrees; no download.

    Three passes of SGD at 0.05 in batches of 16: the data are tiny (1,352 training images).
    """

    set_name: ClassVar[str] = "digits"
    training: ClassVar[Training] = DIGITS_TRAINING


class PermutedDigits(Permuted):
    """Scikit-learn's digits, pixels rearranged in 4 of 5 domains; no download.

    Three passes of SGD at 0.05 in batches of 16: the data are tiny (1,352 training images).
    """

    set_name: ClassVar[str] = "digits"
    training: ClassVar[Training] = DIGITS_TRAINING


class RotatedMnist(Rotated):
    """MNIST at 5 angles from 0 to 144 degrees.

    SGD at 0.03 in batches of 10, one pass, as for split-mnist.
    """

    set_name: ClassVar[str] = "mnist"
    training: ClassVar[Training] = MNIST_TRAINING


class PermutedMnist(Permuted):
    """MNIST, pixels rearranged in 4 of 5 domains.

    SGD at 0.03 in batches of 10, one pass, as for split-mnist.
    """

    set_name: ClassVar[str] = "mnist"
    training: ClassVar[Training] = MNIST_TRAINING
