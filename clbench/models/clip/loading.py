"""What an `open_clip:` string stands for: a named model, a published one, or local files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import UserError, did_you_mean
from ...torchvision_schemas import prepare
from ..spec import ModelSpec, Tokenize
from ..weights import hub_folder
from .build import SUFFIXES, make_clip
from .model import CLIP

CONFIG = "open_clip_config.json"
OPTIONS = ("img_size", "clamp")
PREFERRED = ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")
LARGEST_TOKEN = 49407  # the end of a text, in the vocabulary of OpenAI's models


@dataclass
class Source:
    """Where a model comes from. checkpoint: an id of its weights for the record; folder: of local files."""

    config: dict[str, Any]
    weights: Path | None = None
    checkpoint: str | None = None
    preprocess: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    name: str | None = None


def build_open_clip(spec: ModelSpec) -> tuple[CLIP, str | None]:
    """The model of an `open_clip:` string, and the id of its checkpoint (None: untrained).

    Options: `img_size`, the side of its images, where position embeddings are resampled; `clamp`: whether the logit
    scale is held below ln 100 (true). Raises UserError.
    """
    spec.only_options(*OPTIONS)
    clamp = spec.options.get("clamp", True)
    if not isinstance(clamp, bool):
        raise UserError(f"model {spec.text!r}: clamp must be true or false, not {clamp!r}")
    prepare()
    source = find(spec)
    if spec.options.get("img_size") is not None:
        source.config["vision_cfg"]["image_size"] = spec.integer("img_size", 0)
    mean, std = source.preprocess.get("mean"), source.preprocess.get("std")
    model = make_clip(
        source.config,
        tokenizer(source, spec.text),
        source.weights,
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
        clamp=clamp,
        owner=spec.text,
    )
    return model, source.checkpoint


def local_path(spec: ModelSpec) -> Path | None:
    """The folder or file that the string names, or None where it names a model of open_clip's."""
    path = Path(spec.name).expanduser()
    given = spec.name.startswith(("/", ".", "~")) or path.suffix in (*SUFFIXES, ".json")
    return path if given or path.is_dir() else None


def find(spec: ModelSpec) -> Source:
    """Configuration and weights."""
    path = local_path(spec)
    if path is None:
        return _named(spec)
    if spec.weights is not None:
        if path.suffix != ".json":
            raise UserError(f"model {spec.text!r}: '@' follows a name of open_clip's or a .json file")
        return _with_file(_local(spec, path), spec)
    return _local(spec, path)


def _local(spec: ModelSpec, path: Path) -> Source:
    """A folder with configuration and weights, a file of weights beside its configuration, or a configuration."""
    if not path.exists():
        raise UserError(f"model {spec.text!r}: there is no {path}")
    if path.suffix == ".json":
        return _read(spec, path)
    folder = path if path.is_dir() else path.parent
    source = _read(spec, folder / CONFIG)
    source.weights = _weights_in(spec, path) if path.is_dir() else path
    source.checkpoint = f"folder:{path.resolve().name}" if path.is_dir() else f"file:{path.name}"
    return source


def _read(spec: ModelSpec, path: Path) -> Source:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        config = values.get("model_cfg", values)
        return Source(dict(config), preprocess=dict(values.get("preprocess_cfg", {})), folder=path.parent)
    except (OSError, ValueError, AttributeError, TypeError):
        raise UserError(f"model {spec.text!r}: {path} is missing or no configuration of open_clip's") from None


def _weights_in(spec: ModelSpec, folder: Path) -> Path:
    files = [file for suffix in SUFFIXES for file in sorted(folder.glob(f"*{suffix}"))]
    known = [file for stem in PREFERRED for file in files if file.stem == stem]
    if not known and len(files) != 1:
        what = "no weights" if not files else "several weights"
        raise UserError(f"model {spec.text!r}: {folder} holds {what} ({', '.join(SUFFIXES)}); name the file")
    return (known or files)[0]


def _named(spec: ModelSpec) -> Source:
    import open_clip

    name, _, tag = spec.name.partition("/")
    config = open_clip.get_model_config(name)
    if config is None:
        known = open_clip.list_models()
        hint = did_you_mean(name, known) or "; see open_clip.list_models()"
        raise UserError(f"model {spec.text!r}: open_clip has no model {name!r}{hint}")
    source = Source(dict(config), name=name)
    if spec.weights is not None and tag:
        raise UserError(f"model {spec.text!r}: two sets of weights, {tag!r} and {spec.weights!r}; give one")
    if spec.weights is not None and ("/" in spec.weights or Path(spec.weights).suffix in SUFFIXES):
        return _with_file(source, spec)
    tag = tag or spec.weights or ""
    return _published(source, spec, tag) if tag else source


def _with_file(source: Source, spec: ModelSpec) -> Source:
    source.weights = Path(spec.weights or "").expanduser()
    source.checkpoint = f"file:{source.weights.name}"
    return source


def _published(source: Source, spec: ModelSpec, tag: str) -> Source:
    """Weights of a tag, from the hub or its cache."""
    import open_clip

    published: dict[str, Any] = open_clip.get_pretrained_cfg(source.name, tag)
    if not published:
        tags = open_clip.list_pretrained_tags_by_model(source.name)
        hint = f"it has {', '.join(tags)}" if tags else "it publishes none"
        raise UserError(f"model {spec.text!r}: open_clip has no weights {tag!r} of {source.name}; {hint}")
    place = published.get("hf_hub", "")
    if not place:
        raise UserError(f"model {spec.text!r}: these weights are not on the hub; fetch them and use {source.name}@FILE")
    repo, _, file = place.rpartition("/")
    file = file or "open_clip_model.safetensors"
    folder = hub_folder(repo, [file], model=spec.text)
    source.weights, source.checkpoint = folder / file, f"{repo}@{folder.name}"
    source.preprocess = published
    if published.get("quick_gelu"):
        source.config["quick_gelu"] = True
    return source


def tokenizer(source: Source, text: str) -> Tokenize:
    """open_clip's tokeniser of the model; UserError where its files cannot be had or its ids do not fit."""
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    settings = source.config.get("text_cfg", {})
    options = {"context_length": settings.get("context_length", 77), **(settings.get("tokenizer_kwargs") or {})}
    try:
        if source.name is not None:
            made: Any = open_clip.get_tokenizer(source.name)
        elif settings.get("hf_tokenizer_name"):
            mode = settings.get("tokenizer_mode")
            made = HFTokenizer(_tokenizer_place(source), tokenizer_mode=mode, **options)
        else:
            made = open_clip.SimpleTokenizer(**options)
    except Exception as error:  # transformers' and the hub client's
        raise UserError(f"model {text!r}: its tokeniser cannot be loaded: {type(error).__name__}") from error
    known = settings.get("vocab_size", LARGEST_TOKEN + 1)
    if isinstance(made, open_clip.SimpleTokenizer) and known <= LARGEST_TOKEN:
        raise UserError(f"model {text!r} knows {known} tokens, its tokeniser has {LARGEST_TOKEN + 1}")

    def tokens(texts: Any) -> Tensor:
        out: Tensor = made(list(texts))
        return out.long()

    return tokens


def _tokenizer_place(source: Source) -> str:
    """Where transformers finds the tokeniser that a configuration names: in a folder of that name, in the
    configuration's own folder, or on the hub."""
    name = str(source.config["text_cfg"]["hf_tokenizer_name"])
    if Path(name).expanduser().is_dir():
        return str(Path(name).expanduser())
    files = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model")
    if source.folder is not None and any((source.folder / file).is_file() for file in files):
        return str(source.folder)
    return name
