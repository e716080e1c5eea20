"""Split streams of photographs at 224 pixels, from the folders their authors publish, for pretrained models.

The usual protocol resizes the short side to 256 and scores the 224 x 224 centre; training draws random resized crops
from the whole image. Here the 224 x 224 centre is what is stored, so training crops come from it, too. Pixels are
normalised as the model asks. Most papers use `--order-seed 1993`; each recipe under `configs/` says.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from clbench.config import setting
from clbench.stream import Augmentation, Training

from .class_incremental import Split, SplitConfig
from .pretraining import CARS, CUB, IMAGENET_R

# Zhang et al. (SLCA, 2023): the backbone's and the head's rates differ there; 0.01 is the head's.
FINE_TUNING = Training(optimizer="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4, batch_size=128, epochs=50)


class PhotoConfig(SplitConfig):
    """224 x 224 pixels, 10 tasks."""

    tasks: int = setting(
        10, "tasks of (nearly) equal size, not counting the first where base is set", source="SLCA, 2023", ge=1
    )
    size: int | None = setting(224, "side of the square images in pixels", source="all papers on these sets", ge=1)
    resize: int | None = setting(
        256,
        "short side the images are resized to before the centre is cropped to `size`; none: `size`",
        source="SLCA, RanPAC, PILOT",
    )


class LayoutConfig(PhotoConfig):
    """Which files name the split."""

    layout: Literal["official", "folders"] = setting(
        "official",
        "official: the authors' lists say which images are test data; folders: train/CLASS and test/CLASS do, as the "
        "archives of PILOT and RanPAC have them (another split)",
        source="the set's authors",
    )


class Photos(Split):
    """Shared by the streams of this file."""

    class Config(PhotoConfig):
        """See `PhotoConfig`."""

    channels: ClassVar[Literal[1, 3] | None] = 3
    augmentation: ClassVar[Augmentation] = Augmentation(flip=True, crop=0.08)
    training: ClassVar[Training] = FINE_TUNING
    default_model: ClassVar[str] = "timm:vit_base_patch16_224.augreg_in21k"
    feature_model: ClassVar[str] = default_model


class SplitImagenetR(Photos):
    """ImageNet-R, 224x224, 10 tasks of 20 classes, split into training and test data as by L2P (24,000 and 6,000).

    DualPrompt's authors introduced the stream with the split of L2P's code (TFDS `test[:80%]`), which LAE publishes as
    lists. Put into DATA/images/imagenet_r: imagenet-r.tar, unpacked, and train_list.txt and val_list.txt of
    https://gist.github.com/gqk/e127fe18bf179bdcbdf5e29a8c1ae523. Training as SLCA's: SGD at 0.01, batches of 128,
    50 epochs. The numbers of other splits (split-imagenet-r-coda, split-imagenet-r-pilot) are not comparable.
    """

    set_name: ClassVar[str] = "imagenet_r:l2p"
    pretraining_overlap: ClassVar[str] = IMAGENET_R


class SplitImagenetRCoda(SplitImagenetR):
    """ImageNet-R, 224x224, 10 tasks of 20 classes, split into training and test data as by CODA-Prompt.

    Used by CODA-Prompt, InfLoRA and others. Put into DATA/images/imagenet_r: imagenet-r.tar, unpacked, and
    imagenet-r_train.yaml and imagenet-r_test.yaml of github.com/GT-RIPL/CODA-Prompt, folder dataloaders/splits.
    Otherwise as split-imagenet-r.
    """

    set_name: ClassVar[str] = "imagenet_r:coda"


class SplitImagenetRPilot(SplitImagenetR):
    """ImageNet-R, 224x224, 10 tasks of 20 classes, split into training and test data as in PILOT's archive.

    Used by APER, RanPAC, EASE and all of PILOT. Put the folders train/ and test/ of the archive linked from
    github.com/sun-hailong/LAMDA-PILOT into DATA/images/imagenet_r. Otherwise as split-imagenet-r.
    """

    set_name: ClassVar[str] = "imagenet_r:folders"


class SplitCub200(Photos):
    """CUB-200-2011 birds, 224x224, 10 tasks of 20 classes.

    Put CUB_200_2011.tgz, unpacked, into DATA/images/cub200: 5,994 training and 5,794 test images, as its authors split
    them. `layout=folders` reads train/ and test/ there instead: the archive of PILOT, which RanPAC and APER use, splits
    the set differently. Training as SLCA's: SGD at 0.01, batches of 128, 50 epochs. Crops of half the area and more
    come nearest to SLCA's (224 of 300 pixels).
    """

    class Config(LayoutConfig):
        """See `LayoutConfig`."""

    set_name: ClassVar[str] = "cub200"
    pretraining_overlap: ClassVar[str] = CUB
    augmentation: ClassVar[Augmentation] = Augmentation(flip=True, crop=0.5)

    def source(self) -> str:
        return f"{self.set_name}:{self.config.layout}"


class SplitCars196(SplitCub200):
    """Stanford Cars, 224x224, a task of 16 classes and 9 of 20.

    Put cars_train/, cars_test/, devkit/ and cars_test_annos_withlabels.mat (or car_ims/ and cars_annos.mat) into
    DATA/images/cars196: 8,144 training and 8,041 test images. `layout=folders` reads train/CLASS/ and test/CLASS/ there
    instead. Training as SLCA's: SGD at 0.01, batches of 128, 50 epochs.
    """

    class Config(LayoutConfig):
        """The tasks' sizes."""

        tasks: int = setting(
            9, "tasks of (nearly) equal size, not counting the first where base is set", source="RanPAC, 2023", ge=1
        )
        base: int = setting(16, "classes of a larger first task; 0: none", source="RanPAC, 2023", ge=0)

    set_name: ClassVar[str] = "cars196"
    pretraining_overlap: ClassVar[str] = CARS
