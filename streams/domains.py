"""The domain stream made of several sets that show the same classes in different ways."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from clbench.config import setting
from clbench.errors import UserError
from clbench.stream import Training

from .class_matching import shared_classes
from .domain_incremental import DomainIncremental, Domains, side_by_side
from .image_config import ImageConfig
from .image_data import ImageData, Rows, numbering, read_images
from .normalisation import statistics
from .pretraining import overlap


class DomainSets(DomainIncremental):
    """Several image sets with the same classes, one a task (PACS, say), matched by class name.

    Where sizes differ, all sets take the first one's. One pass of plain SGD at 0.03 in batches of 32, as nothing is
    known of the images; no augmentation unless `pad` and `flip` ask for it.
    """

    class Config(ImageConfig):
        """Which sets."""

        sets: list[str] = setting(
            [], "names or folders of the sets, one a task, as in [pacs_photo,pacs_sketch]", source="the user"
        )
        held_out: list[str] = setting([], "further sets that are evaluated and never trained on", source="none")
        classes: Literal["same", "shared"] = setting(
            "same", "same: all sets must have the same classes; shared: keep those that all have", source="clbench"
        )

    training: ClassVar[Training] = Training(optimizer="sgd", lr=0.03, batch_size=32, epochs=1)

    def domains(self) -> Domains:
        c = self.config
        if not c.sets:
            raise UserError(f"{self.name} needs the sets: sets=[NAME,NAME,...]")
        data = self._read([*c.sets, *c.held_out])
        names = shared_classes(data, c.classes)
        n = len(c.sets)
        train, test = zip(*(_matched(each, names) for each in data), strict=True)
        train = (*train[:n], *(Rows(rows.x[:0], rows.y[:0], rows.keys[:0]) for rows in train[n:]))
        all_train, all_test, domains = side_by_side([each.name for each in data], train, test)
        identity = {
            "sets": sorted(_identity(each) for each in data[:n]),
            "held_out": sorted(_identity(each) for each in data[n:]),
        }
        known = {each.statistics for each in data}
        constants = known.pop() if len(known) == 1 else statistics("", {}, data[0].shape[0])
        notes = overlap([each.name for each in data])
        return Domains(names, all_train, all_test, domains[:n], domains[n:], constants, identity, notes)

    def _read(self, wanted: list[str]) -> list[ImageData]:
        c = self.config
        size, found = c.size, list[ImageData]()
        for name in wanted:
            found.append(read_images(name, self.data_root, size, c.channels or 3, c.resize))
            size = found[0].shape[1]
        names = [data.name for data in found]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{self.name}: the set {name} is named twice; each set needs a name of its own")
        return found


def _matched(data: ImageData, names: list[str]) -> tuple[Rows, Rows]:
    """A set's training and test rows, labels those of `names`."""
    label_of = numbering([data.class_names.index(name) for name in names], len(data.class_names))
    return _labelled(data.train, label_of), _labelled(data.test, label_of)


def _labelled(rows: Rows, label_of: np.ndarray) -> Rows:
    """The rows renumbered, without those whose class has no label; copied only where some go."""
    y = label_of[rows.y]
    if (y >= 0).all():
        return Rows(rows.x, y, rows.keys)
    return Rows(rows.x[y >= 0], y[y >= 0], rows.keys[y >= 0])


def _identity(data: ImageData) -> list[str]:
    return [data.name, data.fingerprint]
