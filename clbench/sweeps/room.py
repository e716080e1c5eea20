"""What of a machine is free for jobs: cores, memory, GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clbench.sweeps.job import Resources


@dataclass(frozen=True)
class Place:
    """What a running job holds. gpus: names for CUDA_VISIBLE_DEVICES, each taken to the share `part`."""

    cpus: int
    memory: int
    gpus: tuple[str, ...] = ()
    part: float = 0.0


class Room:
    """Hands out places so that the jobs under way fit side by side; a job alone gets what there is.

    jobs: at most so many places at once. memory: bytes, None for no limit. gpus: names of the devices.
    """

    def __init__(self, jobs: int, cores: int, memory: int | None = None, gpus: Sequence[str] = ()) -> None:
        self.jobs = jobs
        self.cores = cores
        self.memory = memory
        self._free_gpus = dict.fromkeys(gpus, 1.0)
        self._taken: list[Place] = []

    @property
    def full(self) -> bool:
        """Whether no job at all fits."""
        cpus = sum(place.cpus for place in self._taken)
        return bool(self._taken) and (len(self._taken) >= self.jobs or cpus >= self.cores)

    def take(self, needs: Resources) -> Place | None:
        """A place, or None where the job has to wait. More than the machine has is cut to what it has."""
        cpus = min(needs.cpus, self.cores)
        memory = needs.memory or 0
        gpus = self._gpus(needs.gpus)
        if self._taken:
            if len(self._taken) >= self.jobs or sum(place.cpus for place in self._taken) + cpus > self.cores:
                return None
            if self.memory is not None and sum(place.memory for place in self._taken) + memory > self.memory:
                return None
            if gpus is None:
                return None
        part = min(1.0, needs.gpus)
        place = Place(cpus, memory, gpus or (), part)
        for name in place.gpus:
            self._free_gpus[name] -= part
        self._taken.append(place)
        return place

    def give_back(self, place: Place) -> None:
        self._taken.remove(place)
        for name in place.gpus:
            self._free_gpus[name] += place.part

    def _gpus(self, wanted: float) -> tuple[str, ...] | None:
        """Devices with room for so much, the fullest first, so that whole ones stay whole; None where there is none."""
        if wanted <= 0 or not self._free_gpus:
            return ()
        part = min(1.0, wanted)
        count = min(max(1, round(wanted)), len(self._free_gpus))
        fitting = [name for name, free in self._free_gpus.items() if free >= part - 1e-9]
        fitting.sort(key=lambda name: self._free_gpus[name])
        return tuple(fitting[:count]) if len(fitting) >= count else None
