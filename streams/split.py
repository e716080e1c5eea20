"""The split streams: well-known image sets, and anyone's own, cut into tasks of a few classes."""

from __future__ import annotations

from typing import ClassVar, Literal

from clbench.config import setting
from clbench.errors import UserError
from clbench.stream import Augmentation, Training

from .class_incremental import Split, SplitConfig
from .pretraining import CIFAR, TINY_IMAGENET

# Lopez-Paz and Ranzato (2017) and most online work since: plain SGD in small batches, each image once.
ONE_PASS = Training(optimizer="sgd", lr=0.03, batch_size=32, epochs=1)


class SplitDigits(Split):
    """Scikit-learn's handwritten digits, 8x8 grey, 5 tasks of 2 classes; no download.

    The data are tiny (about 270 training images a task), so a few passes in small batches are recommended: with `mlp`
    five passes at 0.05 fit a task, and all tasks together reach 97 % (clbench, measured).
    """

    set_name: ClassVar[str] = "digits"
    training: ClassVar[Training] = Training(optimizer="sgd", lr=0.05, batch_size=16, epochs=5)


class SplitMnist(Split):
    """MNIST handwritten digits, 28x28 grey, 5 tasks of 2 classes.

    Training as in Buzzega et al. (2020): SGD at 0.03 in batches of 10, one pass, on a network of two hidden layers.
    """

    set_name: ClassVar[str] = "mnist"
    channels: ClassVar[Literal[1, 3] | None] = 1
    training: ClassVar[Training] = Training(optimizer="sgd", lr=0.03, batch_size=10, epochs=1)
    default_model: ClassVar[str] = "mlp"
    feature_model: ClassVar[str] = "pixels"


class SplitFashionMnist(SplitMnist):
    """Fashion-MNIST clothing, 28x28 grey, 5 tasks of 2 classes.

    The form of MNIST, so MNIST's training: SGD at 0.03 in batches of 10, one pass.
    """

    set_name: ClassVar[str] = "fashion_mnist"


class SplitCifar10(Split):
    """CIFAR-10 photos, 32x32, 5 tasks of 2 classes.

    One pass of SGD at 0.03 in batches of 32 suits the default model in the online setting; more epochs suit it offline.
    """

    set_name: ClassVar[str] = "cifar10"
    pretraining_overlap: ClassVar[str] = CIFAR
    augmentation: ClassVar[Augmentation] = Augmentation(pad=4, flip=True)
    training: ClassVar[Training] = ONE_PASS


class SplitCifar100(SplitCifar10):
    """CIFAR-100 photos, 32x32, 10 tasks of 10 classes.

    `tasks=20` gives 20 x 5, `base=50 tasks=5` gives B50-5x10. One pass of SGD at 0.03 in batches of 32.
    """

    class Config(SplitConfig):
        tasks: int = setting(
            10, "tasks of (nearly) equal size, not counting the first where base is set", source="iCaRL, 2017", ge=1
        )

    set_name: ClassVar[str] = "cifar100"


class SplitTinyImagenet(SplitCifar10):
    """Tiny-ImageNet photos, 64x64, 10 tasks of 20 classes; its validation split is the test data.

    One pass of SGD at 0.03 in batches of 32, as for CIFAR-10.
    """

    class Config(SplitConfig):
        tasks: int = setting(
            10, "tasks of (nearly) equal size, not counting the first where base is set", source="DER, 2020", ge=1
        )

    set_name: ClassVar[str] = "tiny_imagenet"
    pretraining_overlap: ClassVar[str] = TINY_IMAGENET


class SplitFiles(Split):
    """Any image set: `path` names a set of the data folder, a folder with Parquet files, or one of class folders.

    Nothing is known of the images: no augmentation unless `pad` and `flip` ask for it, and one pass of plain SGD.
    """

    class Config(SplitConfig):
        path: str = setting("", "name of a set, or a folder", source="the user")

    set_name: ClassVar[str] = ""
    training: ClassVar[Training] = ONE_PASS

    def source(self) -> str:
        if not self.config.path:
            raise UserError(f"{self.name} needs the images: path=NAME or path=FOLDER")
        return self.config.path
