"""CORe50 (Lomonaco and Maltoni, 2017): fifty household objects filmed in eleven places, 128 x 128 pixels.

Sessions 3, 7 and 10 are the test data of both streams. Put core50_128x128.zip, unpacked, into DATA/images/core50.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from clbench.config import setting
from clbench.data.image_folder import FolderSource
from clbench.data.official import open_set
from clbench.data.official_lists import CORE50_CATEGORIES, CORE50_TRAIN, core50_runs
from clbench.errors import UserError
from clbench.stream import Augmentation, Training

from .choosing import rank_in_class
from .class_incremental import Split, SplitConfig
from .domain_incremental import Domain, DomainIncremental, Domains
from .image_config import ImageConfig
from .image_data import Rows, read_images
from .pretraining import CORE50

# Lopez-Paz and Ranzato (2017) and most online work since: plain SGD in small batches, each image once.
ONE_PASS = Training(optimizer="sgd", lr=0.03, batch_size=32, epochs=1)


class Core50NC(Split):
    """CORe50, new classes: a task of 10 objects and 8 of 5, all eight training sessions in each.

    `run=0` to `run=9` are the published orders, read from batches_filelists/ (from batches_filelists.zip) beside the
    images; without it the order seed permutes the objects. One pass of SGD at 0.03 in batches of 32: neighbouring
    frames are much alike.
    """

    class Config(SplitConfig):
        """Ten classes, then five at a time."""

        tasks: int = setting(
            8, "tasks of (nearly) equal size, not counting the first where base is set", source="CORe50, 2017", ge=1
        )
        base: int = setting(10, "classes of a larger first task; 0: none", source="CORe50, 2017", ge=0)
        size: int | None = setting(128, "side of the square images in pixels", source="CORe50, 2017", ge=1)
        run: int | None = setting(
            None, "which published order of the classes; none: the order seed's", source="CORe50, 2017", ge=0, le=9
        )

    set_name: ClassVar[str] = "core50"
    channels: ClassVar[Literal[1, 3] | None] = 3
    augmentation: ClassVar[Augmentation] = Augmentation(flip=True)
    training: ClassVar[Training] = ONE_PASS
    default_model: ClassVar[str] = "timm:vit_base_patch16_224.augreg_in21k"
    feature_model: ClassVar[str] = default_model
    pretraining_overlap: ClassVar[str] = CORE50

    def arrival(self, class_names: list[str]) -> list[int]:
        if self.config.run is None:
            return super().arrival(class_names)
        if self.order_seed:
            raise UserError(f"{self.name}: run={self.config.run} is an order of the classes; leave out the order seed")
        order = [class_names.index(name) for task in self._published() for name in task]
        if sorted(order) != list(range(len(class_names))):
            raise UserError(f"{self.name}: the lists of run {self.config.run} do not hold each object once")
        return order

    def sizes(self, n_classes: int) -> list[int]:
        c = self.config
        if c.run is None:
            return super().sizes(n_classes)
        if c.sizes is not None or c.base != 10 or c.tasks != 8:
            raise UserError(f"{self.name}: run={c.run} says what the tasks are; leave out sizes, base and tasks")
        return [len(task) for task in self._published()]

    def _published(self) -> list[list[str]]:
        return core50_runs(open_set(self.set_name, self.data_root).path, self.config.run)


class Core50NI(DomainIncremental):
    """CORe50, new instances: 8 tasks, a recording session each (s1, s2, s4, s5, s6, s8, s9, s11), all classes in each.

    The test data are the same after every task, sessions 3, 7 and 10. They are dealt out evenly over the tasks' sets,
    so that `average_micro` after the last task is the accuracy on all of them; the sets themselves do not show the
    sessions they are named after. Order seed 0 keeps the sessions' order. One pass of SGD at 0.03 in batches of 32:
    neighbouring frames are much alike.
    """

    class Config(ImageConfig):
        """Objects or categories."""

        size: int | None = setting(128, "side of the square images in pixels", source="CORe50, 2017", ge=1)
        level: Literal["object", "category"] = setting(
            "object", "object: 50 classes; category: 10, five objects each", source="CORe50, 2017"
        )

    augmentation: ClassVar[Augmentation] = Augmentation(flip=True)
    training: ClassVar[Training] = ONE_PASS
    default_model: ClassVar[str] = "timm:vit_base_patch16_224.augreg_in21k"
    feature_model: ClassVar[str] = default_model
    pretraining_overlap: ClassVar[str] = CORE50

    def domains(self) -> Domains:
        c = self.config
        data = read_images("core50", self.data_root, c.size, c.channels or 3, c.resize)
        names, train, test = data.class_names, data.train, data.test
        if c.level == "category":
            names = list(CORE50_CATEGORIES)
            label_of = np.array([names.index(name.rpartition(" ")[0]) for name in data.class_names])
            train, test = (Rows(rows.x, label_of[rows.y], rows.keys) for rows in (train, test))
        sessions = self._sessions()
        dealt = (rank_in_class(np.arange(len(test.y)), test.y, test.keys, "dealing") + test.y) % len(CORE50_TRAIN)
        domains = [
            Domain(f"s{session}", np.flatnonzero(sessions == session), np.flatnonzero(dealt == place))
            for place, session in enumerate(CORE50_TRAIN)
        ]
        identity = {"data": data.fingerprint, "sessions": list(CORE50_TRAIN), "level": c.level}
        return Domains(names, train, test, domains, [], data.statistics, identity)

    def _sessions(self) -> np.ndarray:
        """Each training row's session, int64: the number in its folder's name."""
        source = open_set("core50", self.data_root)
        if not isinstance(source, FolderSource):
            raise UserError(f"{self.name} needs the published folders s1 to s11; {source.path} has other files")
        return np.array([int(path.parent.parent.name[1:]) for path in source.files("train")], np.int64)
