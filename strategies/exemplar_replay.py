"""What WA and iCaRL share: exemplars chosen by herding, and training on them together with the new data."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.config import setting
from clbench.herding import herd
from clbench.phase import Phase
from clbench.samples import Samples
from clbench.strategy import Needs, Strategy
from clbench.stream import Task


class ExemplarReplay(Strategy):
    """Train on a task's data and the exemplars of earlier tasks as one data set (rehearsal); the base of WA and iCaRL.

    Each class of each task has a set of exemplars, chosen by herding on features of unit length with the network as it
    is after the task; all sets are of floor(memory_size / sets), and shrink by leaving out those chosen last. Where no
    class comes twice these are iCaRL's sets (arXiv 1611.07725, algorithms 4 and 5); a class that another domain brings
    again gets a further one. An epoch is a pass over the data and the exemplars.
    """

    class Config(Strategy.Config):
        memory_size: int = setting(
            2000, "exemplars kept, over all classes", source="arXiv 1611.07725 and 1911.07053: CIFAR-100", ge=1
        )

    needs = Needs(stores_samples=True, objectives=("classification",))

    def setup(self) -> None:
        self.state.exemplars = self.exemplars(self.config.memory_size)

    def phases(self, task: Task) -> list[Phase]:
        return [self.phase("train", lambda: self.state.exemplars.joined(task.train))]

    def remember(self, task: Task) -> None:
        """Make room, and add a set for each of the task's classes."""
        exemplars, labels = self.state.exemplars, task.train.labels
        present = [label for label in task.classes if bool((labels == label).any())]
        share = exemplars.make_room(len(present))
        for label in present:
            samples = task.train.subset((labels == label).nonzero()[:, 0])
            exemplars.add(label, samples.raw(herd(self.unit_features(samples), share)))

    @torch.no_grad()
    def unit_features(self, samples: Samples, flip: bool = False) -> Tensor:
        """Features of un-augmented samples (mirrored with `flip`), scaled to unit length: float64 [n, d] on the CPU."""
        training = self.model.training
        self.model.eval()
        found = []
        for batch in self.batches(samples):
            features = self.model.features(batch.x.flip(-1) if flip else batch.x)  # type: ignore[operator]
            found.append(F.normalize(features.double(), dim=1).cpu())
        self.model.train(training)
        return torch.cat(found)
