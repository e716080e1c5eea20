"""One run on several devices: a process (rank) each, all running the whole loop with equal seeds.

Everything is computed alike on every rank, with three exceptions: `loss` sees a share of its batches, and the gradients
are averaged over the ranks before anything reads them; chunks of an evaluation are divided, and their values gathered;
rank 0 alone decides what a clock or a user decides, and writes. A session asks `Ranks`; for one process its answers
cost nothing.

Shares are exact for every sum of means over samples: a batch is divided only where its length divides by the number of
ranks, and computed whole by every rank elsewhere, so that ranks' losses always count alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clbench.errors import RunFailed
from clbench.samples import Batch, Share

if TYPE_CHECKING:
    from torch.nn import Parameter

    from clbench.rng import Randomness

BUCKET = 2**22  # elements that one message carries
PATIENCE = timedelta(minutes=30)  # for a process that is slow, stopped or lost; then the run fails
TURN = timedelta(seconds=0.1)  # of waiting, between which Python hears signals


class Ranks:
    """The processes of a run. This is the plain case: there is one."""

    rank = 0
    size = 1
    divides = True  # False: samples of a batch depend on each other, and every process computes it whole

    @property
    def first(self) -> bool:
        """Whether this process decides, shows and writes."""
        return self.rank == 0

    def parts(self, batch: Batch) -> int:
        """Into how many shares a batch is divided."""
        return 1

    def sharing(self, batch: Batch, random: Randomness) -> AbstractContextManager[Batch]:
        """What `loss` sees of a batch; inside, replayed batches are shared as well."""
        return nullcontext(batch)

    def share(self, batch: Batch) -> Batch:
        """This process's share of a replayed batch, where one is due."""
        return batch

    def meant(self, n: int) -> int:
        """How many samples a strategy means that asks for `n`."""
        return n

    def average(
        self, parameters: Iterable[Parameter], statistics: Sequence[Tensor], loss: Tensor, interrupted: bool
    ) -> Tensor:
        """Average gradients and running statistics over the ranks, in place; the mean loss."""
        return loss

    def interrupted(self, here: bool) -> bool:
        """Whether the run is to stop: what rank 0 was told."""
        return here

    def agreed(self, here: bool) -> bool:
        """What rank 0 says."""
        return here

    def combined(self, values: Tensor) -> Tensor:
        """The sum over ranks: each has the values of its own rows, and zeros."""
        return values

    def equal(self, digest: str) -> bool:
        """Whether all ranks have the same hexadecimal digest."""
        return True


class Group(Ranks):
    """Several processes, joined by torch.distributed: gloo for tensors on the CPU and for decisions, NCCL for GPUs.

    explain: what is known of why another process is gone, in one line ("" where nothing is).
    """

    def __init__(self, rank: int, size: int, device: torch.device, explain: Callable[[], str]) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        self._explain = explain
        self._shared: Share | None = None
        self._told: bool | None = None

    @staticmethod
    def join(
        store: Any, rank: int, size: int, local_rank: int, device: torch.device, explain: Callable[[], str]
    ) -> Group:
        """Meet the other processes at the store. Raises RunFailed where one does not come."""
        import torch.distributed as dist

        backend = "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(local_rank)
            backend = "cpu:gloo,cuda:nccl"
        try:
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        except RuntimeError as error:
            raise RunFailed(explain() or f"the run's processes cannot reach each other: {_line(error)}") from error
        return Group(rank, size, device, explain)

    def leave(self) -> None:
        """End the group, also a broken one."""
        import torch.distributed as dist

        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()

    # -- shares --------------------------------------------------------------------------------------------------

    def parts(self, batch: Batch) -> int:
        return self.size if self.divides and len(batch) % self.size == 0 else 1

    @contextmanager
    def sharing(self, batch: Batch, random: Randomness) -> Iterator[Batch]:
        """A share has random numbers of its own (dropout); what a strategy adds to its `extra` is gathered."""
        if self.parts(batch) == 1:
            yield batch
            return
        share = Share.of(batch, self.rank, self.size)
        given = dict(share.extra)
        self._shared = share
        random.seed_torch("rank", self.rank)
        try:
            yield share
        finally:
            self._shared = None
        random.seed_all("after-loss")
        for key in sorted(share.extra):
            if share.extra[key] is not given.get(key):
                batch.extra[key] = self._gathered(key, share)

    def share(self, batch: Batch) -> Batch:
        """Only batches of a step that is shared: a strategy may cut outputs at the length of the step's batch."""
        shared = self._shared is not None and self.parts(batch) > 1
        return Share.of(batch, self.rank, self.size) if shared else batch

    def meant(self, n: int) -> int:
        """`n` taken from the length of a share means as many as the whole batch has."""
        share = self._shared
        relative = share is not None and share.measured and n == len(share.labels)
        return n * self.size if relative else n

    def _gathered(self, key: str, share: Share) -> Tensor:
        column, rows = share.extra[key], len(share.labels)
        if not isinstance(column, Tensor):
            kind = type(column).__name__
            raise RunFailed(f"batch.extra[{key!r}] is a {kind}: it must be a tensor with a row for each sample")
        if column.dim() == 0 or len(column) < rows:
            raise RunFailed(f"batch.extra[{key!r}] has {list(column.shape)} values for {rows} samples: one row each")
        mine = column[:rows].detach().contiguous()
        as_bytes = mine.reshape(-1).view(torch.uint8)
        parts = [torch.empty_like(as_bytes) for _ in range(self.size)]
        self._call(as_bytes, lambda dist: dist.all_gather(parts, as_bytes, async_op=True))
        return torch.cat([part.view(mine.dtype).view(mine.shape) for part in parts])

    # -- updates -------------------------------------------------------------------------------------------------

    def average(
        self, parameters: Iterable[Parameter], statistics: Sequence[Tensor], loss: Tensor, interrupted: bool
    ) -> Tensor:
        """A parameter without gradient on some ranks counts as zero there; without one on all, it keeps none.

        Whether rank 0 was interrupted travels along.
        """
        parameters = list(parameters)
        present = torch.tensor([float(interrupted and self.first), *(float(p.grad is not None) for p in parameters)])
        value = loss.detach().float().reshape(1)
        on_gpu = self.device.type == "cuda"
        notes = value if on_gpu else torch.cat([value, present])
        if on_gpu:
            self._call(present, lambda dist: dist.all_reduce(present, async_op=True))
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        self._mean([notes, *gradients, *statistics])
        if not on_gpu:
            present = notes[1:]
        self._told = bool(present[0])
        for parameter, gradient, share in zip(parameters, gradients, present[1:].tolist(), strict=True):
            parameter.grad = gradient if share else None
        return notes[0].to(loss.dtype)

    def _mean(self, tensors: Sequence[Tensor]) -> None:
        """Mean over ranks, in place, by messages of one type and bounded length."""
        buckets: list[list[Tensor]] = []
        filled: dict[torch.dtype, tuple[list[Tensor], int]] = {}
        for tensor in tensors:
            bucket, elements = filled.get(tensor.dtype, ([], BUCKET))
            if elements + tensor.numel() > BUCKET:
                bucket, elements = [], 0
                buckets.append(bucket)
            bucket.append(tensor)
            filled[tensor.dtype] = (bucket, elements + tensor.numel())
        under_way = [self._start_sum(bucket) for bucket in buckets]
        for bucket, (flat, work) in zip(buckets, under_way, strict=True):
            self._wait(flat, work)
            flat.div_(self.size)
            for tensor, summed in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.detach().copy_(summed.view(tensor.shape))

    def _start_sum(self, tensors: list[Tensor]) -> tuple[Tensor, Any]:
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        return flat, self._begin(lambda dist: dist.all_reduce(flat, async_op=True))

    # -- decisions -----------------------------------------------------------------------------------------------

    def interrupted(self, here: bool) -> bool:
        told, self._told = self._told, None
        return self.agreed(here) if told is None else told

    def agreed(self, here: bool) -> bool:
        flag = torch.tensor([here], dtype=torch.uint8)
        self._call(flag, lambda dist: dist.broadcast(flag, 0, async_op=True))
        return bool(flag)

    def combined(self, values: Tensor) -> Tensor:
        self._call(values, lambda dist: dist.all_reduce(values, async_op=True))
        return values

    def equal(self, digest: str) -> bool:
        mine = torch.frombuffer(bytearray.fromhex(digest), dtype=torch.uint8)
        every = [torch.empty_like(mine) for _ in range(self.size)]
        self._call(mine, lambda dist: dist.all_gather(every, mine, async_op=True))
        return all(torch.equal(mine, other) for other in every)

    # -- waiting -------------------------------------------------------------------------------------------------

    def _call(self, tensor: Tensor, collective: Callable[[Any], Any]) -> None:
        """An asynchronous collective over `tensor`, waited for."""
        self._wait(tensor, self._begin(collective))

    def _begin(self, collective: Callable[[Any], Any]) -> Any:
        import torch.distributed as dist

        with self._explained():
            return collective(dist)

    def _wait(self, tensor: Tensor, work: Any) -> None:
        """In short turns, so that a second Ctrl-C ends a run one of whose processes is stopped or hangs.

        NCCL's work only joins the GPU's queue: there is nothing to wait for here.
        """
        while not tensor.is_cuda and not work.is_completed():
            with suppress(RuntimeError):  # the turn is over
                work.wait(TURN)
        with self._explained():
            work.wait()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Where another process is gone a collective fails, and so does the run, in one line."""
        try:
            yield
        except RuntimeError as error:
            raise RunFailed(self._explain() or f"the run's processes lost each other: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
