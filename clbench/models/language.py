"""Causal language models of transformers, pretrained or built from a config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from ..torchvision_schemas import prepare
from .spec import InputSpec, ModelSpec
from .weights import hub_folder, load_backbone, mismatch

BYTE_VOCABULARY = 257  # 256 bytes and the end of a document
ATTENTIONS = ("eager", "sdpa")


class CausalLM(nn.Module):
    """A transformers causal language model as a map from tokens to logits.

    Blocks are full: no attention mask, no cache. Dropout is off unless the config is built otherwise.

    Args:
        backbone: the transformers model, output layer included.
        input: what it takes (`size` is the longest block).
    """

    def __init__(self, backbone: nn.Module, input: InputSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.input = input
        self.identity: dict[str, Any] = {}

    @property
    def vocab_size(self) -> int:
        return int(self.output_layer.weight.shape[0])

    @property
    def output_layer(self) -> nn.Linear:
        """The layer from the last hidden state to the logits; some models tie it to the token embedding."""
        return self.backbone.get_output_embeddings()  # type: ignore[operator]

    @property
    def feature_dim(self) -> int:
        return int(self.output_layer.weight.shape[1])

    def features(self, tokens: Tensor) -> Tensor:
        """Last hidden state [B, T, d] of tokens, int64 [B, T]."""
        return self.backbone.base_model(input_ids=tokens, use_cache=False)[0]  # type: ignore[operator]

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, T, V] of the next token at every position of tokens, int64 [B, T]."""
        return self.backbone(input_ids=tokens, use_cache=False).logits


def build_byte_gpt(spec: ModelSpec, block: int, vocab_size: int | None) -> CausalLM:
    """A small GPT-NeoX (the architecture of Pythia), by default of 0.13 M parameters.

    Options: `d` (width, 64), `layers` (2), `heads` (2), `ctx` (longest block, 64 or the stream's where that
    is longer), `attn` (eager or sdpa; eager is as fast at these sizes and has exact batching rules under
    `vmap`). Rotary positions, biases, LayerNorm, untied output layer, no dropout; transformers' own
    initialisation.
    """
    prepare()
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    spec.only_options("d", "layers", "heads", "ctx", "attn")
    width, heads = spec.integer("d", 64), spec.integer("heads", 2)
    context = spec.integer("ctx", max(64, block))
    if width % (8 * heads):
        raise UserError(f"model {spec.text!r}: d={width} must be a multiple of 8 * heads = {8 * heads}")
    config = GPTNeoXConfig(
        vocab_size=vocab_size or BYTE_VOCABULARY,
        hidden_size=width,
        num_hidden_layers=spec.integer("layers", 2),
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=context,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    config._attn_implementation = _attention(spec, "eager")
    backbone = GPTNeoXForCausalLM(config)
    if spec.weights_file is not None:
        load_backbone(backbone, spec.weights_file)
    return CausalLM(backbone, _input(spec, config, block, vocab_size))


def build_hf(spec: ModelSpec, block: int, vocab_size: int | None) -> tuple[CausalLM, str]:
    """A pretrained causal LM, in float32, from a local folder or the hub; returns it and its checkpoint id.

    Options: `revision` (hub only), `attn` (sdpa or eager). Only safetensors are read and no code from the
    repository runs. Dropout rates of the config are set to zero.
    """
    spec.only_options("revision", "attn")
    attention = _attention(spec, "sdpa")
    folder, checkpoint = _folder(spec)
    prepare()
    _check_tokenizer(spec, folder, vocab_size)
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises whatever its parts raise
        raise UserError(f"model {spec.text!r}: its config.json cannot be used: {mismatch(error)}") from error
    takes = _input(spec, config, block, vocab_size)
    without_dropout(config)
    config.use_cache = False
    try:
        backbone = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            attn_implementation=attention,
        ).float()
    except Exception as error:
        raise UserError(f"model {spec.text!r}: cannot be loaded: {mismatch(error)}") from error
    backbone.train()
    return CausalLM(backbone, takes), checkpoint


def without_dropout(config: Any) -> None:
    """Set every dropout rate of a transformers config to zero, whatever the architecture calls it."""
    for key, value in config.to_dict().items():
        if ("dropout" in key or "pdrop" in key) and isinstance(value, float):
            setattr(config, key, 0.0)


def _folder(spec: ModelSpec) -> tuple[Path, str]:
    local = Path(spec.name).expanduser()
    if not local.is_dir():
        if spec.name.startswith(("/", ".", "~")):
            raise UserError(f"model {spec.text!r}: no folder {spec.name}")
        revision = spec.options.get("revision")
        patterns = ["*.safetensors", "*.json", "*.txt", "*.model"]
        folder = hub_folder(spec.name, patterns, None if revision is None else str(revision), spec.text)
        return folder, f"{spec.name}@{folder.name}"
    config = local / "config.json"
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"model {spec.text!r}: {config} is missing or not JSON") from error
    if not any(local.glob("*.safetensors")):
        raise UserError(f"model {spec.text!r}: {local} holds no .safetensors file; nothing else is read")
    return local, f"folder:{local.resolve().name}"


def _check_tokenizer(spec: ModelSpec, folder: Path, vocab_size: int | None) -> None:
    """UserError where the model comes with a tokeniser of another size than the stream's: its ids mean other things."""
    if vocab_size is None or not (folder / "tokenizer.json").is_file():
        return
    from tokenizers import Tokenizer

    try:
        own = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"model {spec.text!r}: its tokenizer.json cannot be read: {error}") from None
    if own != vocab_size:
        from transformers import AutoTokenizer

        own = len(AutoTokenizer.from_pretrained(folder, local_files_only=True))  # with tokens that its config adds
    if own != vocab_size:
        raise UserError(
            f"model {spec.text!r} comes with a tokeniser of {own} ids, the stream's has {vocab_size}; "
            f"set tokenizer=hf:{spec.name}"
        )


def _attention(spec: ModelSpec, default: str) -> str:
    value = spec.options.get("attn", default)
    if value not in ATTENTIONS:
        raise UserError(f"model {spec.text!r}: attn must be eager or sdpa, not {value!r}")
    return str(value)


def _input(spec: ModelSpec, config: Any, block: int, vocab_size: int | None) -> InputSpec:
    """The input of a model with this config; UserError where the stream's blocks or tokens do not fit."""
    config = config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if longest is not None and block > longest:
        raise UserError(f"model {spec.text!r} takes blocks of up to {longest} tokens, the stream's have {block}")
    if vocab_size is not None and vocab_size > config.vocab_size:
        known = config.vocab_size
        raise UserError(f"model {spec.text!r} knows {known} token ids, the stream uses {vocab_size}")
    return InputSpec("tokens", 0, longest, vocab_size=config.vocab_size)
