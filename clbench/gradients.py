"""Squared per-sample gradients: the diagonal of the Fisher information.

A backward pass over a batch gives the sum of the samples' gradients; the squares are needed before summing. Linear,
convolution, norm and embedding layers have closed forms in what went into the layer and the gradient at its output,
which one forward and one backward pass over the batch give. Any other parameter is differentiated by
`torch.func` (vmap over grad), or sample by sample where the model cannot be vmapped (data-dependent control flow,
say). A closed form is used only for parameters where it agrees with a loop over the first two samples.

Where a sample's loss depends on its batch (contrastive losses) there is no gradient of a sample by itself: the gradient
of a batch's mean loss is squared instead, as FoMo-in-Flux does (arXiv 2408.14471).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.func import functional_call, grad, vmap

from clbench.errors import UserError
from clbench.models.heads import LinearHead
from clbench.models.modes import in_eval_mode

if TYPE_CHECKING:
    from clbench.objectives import Objective
    from clbench.samples import Batch

Squares = dict[str, Tensor]
LABELS = ("true", "sampled", "predicted")
LARGEST_CHUNK = 32
CHUNK_ELEMENTS = 2**24


def squared_gradients(
    model: nn.Module,
    objective: Objective,
    batches: Iterable[Batch],
    labels: str = "true",
    generator: torch.Generator | None = None,
) -> Squares:
    """Mean over samples of the squared gradient of each sample's loss: {name: tensor like the parameter}.

    labels: "true" (the empirical Fisher), "sampled" from the model's distribution with `generator` (the Fisher), or
    "predicted". Where the objective couples samples: mean over batches, weighted by their samples, of the squared
    gradient of the batch's mean loss, for "true" labels alone. The model is in eval mode meanwhile, so that a sample's
    loss does not depend on the others; its modes and gradients are left as they were. Parameters that need no gradient
    are left out, buffers are constants. All zeros where there are no samples. Raises UserError for an unknown kind of
    labels.
    """
    if labels not in LABELS:
        raise UserError(f"unknown labels {labels!r} for squared gradients: use {', '.join(LABELS)}")
    if labels == "sampled" and generator is None:
        raise ValueError("sampled labels need a generator")
    if objective.couples_samples:
        if labels != "true":
            raise UserError(f"squared gradients of pairs of images and texts need labels=true, not {labels}")
        return _of_batches(model, objective, batches)
    per_sample = _PerSample(model, objective)
    total = {name: torch.zeros_like(p) for name, p in per_sample.parameters.items()}
    n = 0
    with _eval_mode(model), torch.enable_grad():
        for batch in batches:
            for x, y in zip(batch.x.split(LARGEST_CHUNK), batch.y.split(LARGEST_CHUNK), strict=True):
                if labels != "true":
                    with torch.no_grad():
                        y = objective.decide(model(x), generator if labels == "sampled" else None)
                per_sample.accumulate(x, y, total)
                n += len(x)
    return {name: squares / max(n, 1) for name, squares in total.items()}


def _of_batches(model: nn.Module, objective: Objective, batches: Iterable[Batch]) -> Squares:
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    n = 0
    with _eval_mode(model), torch.enable_grad():
        for batch in batches:
            loss = objective.mean_loss(model(batch.x), batch.y)
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, g in zip(parameters, gradients, strict=True):
                if g is not None:
                    total[name] += len(batch) * g.square()
            n += len(batch)
    return {name: squares / max(n, 1) for name, squares in total.items()}


class _PerSample:
    """Sums over samples of squared gradients, each parameter's by the quickest way that is exact for it."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        self.model = model
        self.objective = objective
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.layers = _closed_form_layers(model, self.parameters)
        self.vmapped = True
        self._agreed: set[str] | None = None

    def accumulate(self, x: Tensor, y: Tensor, total: Squares) -> None:
        """Add the samples' squared gradients to `total`."""
        if self._agreed is None:
            self._agreed = self._agreement(x[:2], y[:2])
            self.layers = {layer: names for layer, names in self.layers.items() if self._agreed & set(names)}
        if self.layers:
            for name, squares in self.closed_form(x, y).items():
                if name in self._agreed:
                    total[name] += squares
        rest = [name for name in self.parameters if name not in self._agreed]
        if rest:
            chunk = max(1, CHUNK_ELEMENTS // sum(self.parameters[name].numel() for name in rest))
            for some, targets in zip(x.split(chunk), y.split(chunk), strict=True):
                for name, squares in self.generic(rest, some, targets).items():
                    total[name] += squares

    def closed_form(self, x: Tensor, y: Tensor) -> Squares:
        """For the layers that have a rule, called once with a batch: one forward and one backward pass.

        The gradient is taken at the graph edge behind a layer's output, which later in-place operations on the
        output do not move.
        """
        calls: list[tuple[nn.Module, Tensor, Any]] = []

        def record(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if inputs:
                calls.append((layer, inputs[0].detach(), get_gradient_edge(output)))

        hooks = [layer.register_forward_hook(record) for layer in self.layers]
        try:
            loss = self.objective.losses(self.model(x), y).sum()
        finally:
            for handle in hooks:
                handle.remove()
        times = Counter(layer for layer, _, _ in calls)
        calls = [call for call in calls if times[call[0]] == 1 and len(call[1]) == len(x)]
        if not calls:
            return {}
        deltas = torch.autograd.grad(loss, [edge for _, _, edge in calls], allow_unused=True)
        squares: Squares = {}
        for (layer, inputs, _), delta in zip(calls, deltas, strict=True):
            if delta is not None:
                found = RULES[type(layer)](layer, inputs, delta.detach())
                squares |= {name: found[kind] for name, kind in self.layers[layer].items()}
        return squares

    def generic(self, names: Iterable[str], x: Tensor, y: Tensor) -> Squares:
        """For any parameters: by vmap, or sample by sample."""
        if self.vmapped:
            try:
                return self._by_vmap(names, x, y)
            except (RuntimeError, ValueError, NotImplementedError):
                self.vmapped = False
        return self._by_loop(names, x, y)

    def _by_vmap(self, names: Iterable[str], x: Tensor, y: Tensor) -> Squares:
        constants = {name: p.detach() for name, p in self.model.named_parameters()}

        def loss(wanted: Squares, x: Tensor, y: Tensor) -> Tensor:
            outputs = functional_call(self.model, {**constants, **wanted}, (x[None],))
            return self.objective.losses(outputs, y[None])[0]

        wanted = {name: constants[name] for name in names}
        gradients = vmap(grad(loss), in_dims=(None, 0, 0))(wanted, x, y)
        return {name: g.square().sum(0) for name, g in gradients.items()}

    def _by_loop(self, names: Iterable[str], x: Tensor, y: Tensor) -> Squares:
        wanted = {name: self.parameters[name] for name in names}
        total = {name: torch.zeros_like(p) for name, p in wanted.items()}
        for i in range(len(x)):
            loss = self.objective.losses(self.model(x[i : i + 1]), y[i : i + 1]).sum()
            gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
            for name, g in zip(wanted, gradients, strict=True):
                if g is not None:
                    total[name] += g.square()
        return total

    def _agreement(self, x: Tensor, y: Tensor) -> set[str]:
        """Parameters whose closed form gives what a loop over these samples gives."""
        if not self.layers:
            return set()
        found = self.closed_form(x, y)
        expected = self._by_loop(found, x, y)
        return {name for name in found if _agree(found[name], expected[name])}


def _agree(a: Tensor, b: Tensor) -> bool:
    scale = b.abs().max().item() if b.numel() else 0.0
    return torch.allclose(a, b, rtol=1e-3, atol=1e-5 * scale)


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode for all modules, each put back to its own mode afterwards; a compiled model runs uncompiled."""
    compiled = any(module._compiled_call_impl is not None for module in model.modules())
    with in_eval_mode(model), torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        yield


# -- closed forms ------------------------------------------------------------------------------------------------------


def _closed_form_layers(model: nn.Module, parameters: dict[str, nn.Parameter]) -> dict[nn.Module, dict[str, str]]:
    """Layers with a rule -> {full name: "weight" or "bias"} of their parameters, where no other layer holds them."""
    holders = Counter(p for module in model.modules() for p in module.parameters(recurse=False))
    layers: dict[nn.Module, dict[str, str]] = {}
    for prefix, module in model.named_modules():
        own = dict(module.named_parameters(prefix, recurse=False))
        names = {name: name.rpartition(".")[2] for name in own if name in parameters}
        if names and _has_rule(module) and all(holders[p] == 1 for p in own.values()):
            layers[module] = names
    return layers


def _has_rule(module: nn.Module) -> bool:
    if type(module) not in RULES:
        return False
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
        return module.running_mean is not None
    if isinstance(module, nn.Embedding):
        return module.padding_idx is None and module.max_norm is None and not module.scale_grad_by_freq
    return True


def _summed_squares(left: Tensor, right: Tensor) -> Tensor:
    """Sum over b of the squares of left[b] @ right[b]^T: [B, o, t] and [B, i, ..., t, ...] (a view) to [o, i].

    On a CPU a product at a time, so that it stays in the cache; elsewhere in chunks of bounded size.
    """
    rows, terms = left.shape[1], left.shape[2]
    columns = right[0].numel() // terms
    squares = left.new_zeros(rows, columns)
    if left.device.type == "cpu":
        for a, b in zip(left, right, strict=True):
            product = a @ b.reshape(columns, terms).T
            squares.addcmul_(product, product)
        return squares
    chunk = max(1, CHUNK_ELEMENTS // (columns * max(rows, terms)))
    for a, b in zip(left.split(chunk), right.split(chunk), strict=True):
        squares += torch.bmm(a, b.reshape(len(b), columns, terms).transpose(1, 2)).square_().sum(0)
    return squares


def _linear(layer: nn.Module, inputs: Tensor, delta: Tensor) -> Squares:
    if inputs.dim() == 2:
        return {"weight": delta.square().T @ inputs.square(), "bias": delta.square().sum(0)}
    delta, inputs = delta.flatten(1, -2).transpose(1, 2), inputs.flatten(1, -2).transpose(1, 2)
    return {"weight": _summed_squares(delta, inputs), "bias": delta.sum(2).square().sum(0)}


def _conv2d(layer: nn.Module, inputs: Tensor, delta: Tensor) -> Squares:
    """The weight's gradient: the output's gradient times the window of inputs that each weight met."""
    assert isinstance(layer, nn.Conv2d) and not isinstance(layer.padding, str)
    (top, left), (down, across), (rows, columns) = layer.padding, layer.stride, layer.dilation
    padded = F.pad(inputs, (left, left, top, top)).contiguous()
    bias = delta.sum((2, 3)).square().sum(0)
    if layer.stride == layer.dilation == (1, 1):
        return {"weight": _unit_stride(padded, delta, *layer.kernel_size), "bias": bias}
    sample, channel, row, column = padded.stride()
    windows = padded.as_strided(
        (*inputs.shape[:2], *layer.kernel_size, *delta.shape[2:]),
        (sample, channel, row * rows, column * columns, row * down, column * across),
    )
    return {"weight": _summed_squares(delta.flatten(2), windows).view(layer.weight.shape), "bias": bias}


def _unit_stride(padded: Tensor, delta: Tensor, height: int, width: int) -> Tensor:
    """The same without copying windows: [B, i, H, W] and [B, o, h, w] to [o, i, height, width].

    With rows laid end to end and the output's gradient filled up with zeros to the input's width, what a weight met is
    one run of the input, shifted by the weight's place in the kernel.
    """
    extra = width - 1
    wide = F.pad(delta, (0, extra)).flatten(2)
    wide = wide[..., : wide.shape[2] - extra]
    flat, line, length = padded.flatten(2), padded.shape[3], wide.shape[2]
    squares = delta.new_empty(delta.shape[1], padded.shape[1], height, width)
    for place in range(height * width):
        i, j = divmod(place, width)
        start = i * line + j
        met = flat[..., start : start + length].transpose(1, 2)
        squares[:, :, i, j] = torch.bmm(wide, met).square_().sum(0)
    return squares


def _batch_norm(layer: nn.Module, inputs: Tensor, delta: Tensor) -> Squares:
    """In eval mode: an affine map of inputs standardised by constants."""
    assert isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))
    assert layer.running_mean is not None and layer.running_var is not None
    standardised = F.batch_norm(inputs, layer.running_mean, layer.running_var, eps=layer.eps)
    per_sample = {"weight": delta * standardised, "bias": delta}
    return {kind: g.reshape(*g.shape[:2], -1).sum(2).square().sum(0) for kind, g in per_sample.items()}


def _layer_norm(layer: nn.Module, inputs: Tensor, delta: Tensor) -> Squares:
    assert isinstance(layer, nn.LayerNorm)
    standardised = F.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)
    per_sample = {"weight": delta * standardised, "bias": delta}
    shape = (len(inputs), -1, *layer.normalized_shape)
    return {kind: g.reshape(shape).sum(1).square().sum(0) for kind, g in per_sample.items()}


def _embedding(layer: nn.Module, inputs: Tensor, delta: Tensor) -> Squares:
    """A row's gradient is the sum over the places where a sample has its token: added up per (sample, token)."""
    assert isinstance(layer, nn.Embedding)
    n = layer.num_embeddings
    first = torch.arange(len(inputs), device=inputs.device) * n
    met, place = (inputs.flatten(1) + first[:, None]).flatten().unique(return_inverse=True)
    per_sample = delta.new_zeros(len(met), delta.shape[-1]).index_add_(0, place, delta.reshape(-1, delta.shape[-1]))
    return {"weight": torch.zeros_like(layer.weight).index_add_(0, met % n, per_sample.square())}


RULES: dict[type[nn.Module], Callable[[nn.Module, Tensor, Tensor], Squares]] = {
    nn.Linear: _linear,
    LinearHead: _linear,
    nn.Conv2d: _conv2d,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.Embedding: _embedding,
}
