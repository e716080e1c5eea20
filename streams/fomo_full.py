"""FoMo-in-Flux as published: 41 sets to adapt to and 22 held out, from folders of the data root."""

from __future__ import annotations

from typing import ClassVar, Literal

from clbench.config import setting
from clbench.stream import Training

from .fomo import Fomo
from .fomo_config import FOMO, FomoConfig

ADAPTATION = [
    "ai2diagrams", "artbench10", "birdsnap", "cifar100", "clevr", "clrs", "country211", "cub200", "df20mini",
    "dollarstreet", "domainnet_clipart", "domainnet_infograph", "domainnet_painting", "domainnet_sketch", "dsprites",
    "dtd", "fgvcaircraft", "flowers102", "fru92", "fscoco", "inaturalist2021", "isicmelanoma", "mitstates", "mtsd",
    "mvtecad_base", "mvtecad_faults", "objectnet", "obscure_animals", "obscure_things", "openimages", "patternnet",
    "places365", "plantvillage", "quilt", "resisc45", "shapes3d", "snakeclef2023", "sun397", "synthclip106", "veg200",
    "zappos50k",
]  # fmt: skip
"""40 for classification and FSCOCO for retrieval: table 1 of the paper's repository."""

HELD_OUT = [
    "caltech101", "caltech256", "cars196", "cifar10", "domainnet_quickdraw", "eurosat", "fashionmnist", "flickr30k",
    "food101", "gtsrb", "imagenet", "imagenet_a", "imagenet_d", "imagenet_r", "imagenet_s", "imagenet_v2", "mnist",
    "monkeys10", "mscoco", "oxford_pets", "stl10", "svhn",
]  # fmt: skip
"""20 for classification, MSCOCO and Flickr30k for retrieval: table 2 of the paper's repository."""

RETRIEVAL = ["fscoco", "mscoco", "flickr30k"]

YEARS = {
    "flowers102": 2008, "cifar100": 2009, "sun397": 2010, "cub200": 2011, "fgvcaircraft": 2013, "zappos50k": 2014,
    "birdsnap": 2014, "dtd": 2014, "mitstates": 2015, "plantvillage": 2015, "openimages": 2016, "ai2diagrams": 2016,
    "veg200": 2017, "fru92": 2017, "clevr": 2017, "places365": 2017, "dsprites": 2017, "shapes3d": 2018,
    "patternnet": 2018, "domainnet_clipart": 2019, "domainnet_infograph": 2019, "domainnet_painting": 2019,
    "domainnet_sketch": 2019, "objectnet": 2019, "mvtecad_base": 2019, "mvtecad_faults": 2019, "mtsd": 2020,
    "isicmelanoma": 2020, "clrs": 2020, "inaturalist2021": 2021, "df20mini": 2021, "country211": 2021,
    "resisc45": 2021, "snakeclef2023": 2022, "artbench10": 2022, "fscoco": 2022, "dollarstreet": 2022,
    "obscure_animals": 2023, "obscure_things": 2023, "quilt": 2023, "synthclip106": 2023,
}  # fmt: skip
"""The groups are those of the published streams by time (which sets share a year, and their order); the numbers, where
the streams do not tell them, are clbench's."""


class FomoFull(Fomo):
    """FoMo-in-Flux: 18,381 concepts of 41 sets in 20 tasks, 22 sets held out, a pool of web images and captions.

    A recipe: the sets are folders (or Parquet) of these names in the data root, `info.json` with `caption_template` for
    the primer, captions of images beside them; `pretraining` names the pool, a set like any other. A published stream
    is read by `stream_file`. ViT-B/16 at 224 pixels, AdamW at 1e-5 with weight decay 0.2, batches of 512, gradients
    clipped at 1, cosine with a tenth of warm-up to a thousandth in every task; 1420 steps a task (`--set steps=1420`)
    for 20 tasks of full fine-tuning: FoMo-in-Flux (arXiv 2408.14471), its code's configuration.
    """

    class Config(FomoConfig):
        sets: list[str] = setting(ADAPTATION, "sets to adapt to (see fomo)", source=FOMO)
        held_out: list[str] | None = setting(HELD_OUT, "sets that are never trained on", source=FOMO)
        pretraining: list[str] = setting(["laion400m_2m"], "the pool of images and captions", source=FOMO)
        retrieval: list[str] = setting(RETRIEVAL, "sets scored by retrieval", source=FOMO)
        years: dict[str, int] = setting(YEARS, "years of the sets, for orders by time", source=FOMO)
        tasks: int | None = setting(20, "tasks (50, 100, 200 in the paper's longer streams)", source=FOMO, ge=1)
        size: int = setting(224, "side of the square images in pixels", source=FOMO, ge=1)
        loss: Literal["clip", "clip-mp", "siglip", "siglip-mp"] = setting("clip", "see fomo", source=FOMO)

    training: ClassVar[Training] = Training(
        optimizer="adamw",
        lr=1e-5,
        weight_decay=0.2,
        batch_size=512,
        epochs=1,
        schedule="rewarm-cosine:warmup=0.1,floor=0.001",
        clip=1.0,
    )
    default_model: ClassVar[str] = "open_clip:ViT-B-16/laion2b_s34b_b88k?clamp=false"
