"""micro-clip: what ships with the package, what may be asked of it, and how it is trained."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from clbench.errors import UserError
from clbench.models import build_model, describe, model_info
from clbench.models.clip.attention import SplitAttention
from clbench.models.clip.model import CLIP
from clbench.models.micro_clip import pretrain
from clbench.models.micro_clip.architecture import CONFIG, register
from clbench.models.micro_clip.build import WEIGHTS
from clbench.models.micro_clip.tokenizer import CONTEXT, encode, tokenize
from clbench.models.micro_vit.backbone import WEIGHTS as MICRO_VIT
from clbench.pairs import Pairs

CARD = WEIGHTS.with_name("CARD.md")
Build = Callable[[str], CLIP]


@pytest.fixture
def clip_model() -> Build:
    def build(spec: str) -> CLIP:
        torch.manual_seed(0)
        made = build_model(spec, channels=3, size=32, mean=(0.5,) * 3, std=(0.25,) * 3, pairs=True)
        assert isinstance(made, CLIP)
        return made

    return build


def test_what_ships_is_small_and_needs_no_network() -> None:
    assert WEIGHTS.stat().st_size <= 8_000_000
    tensors = load_file(WEIGHTS)
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    assert all(torch.isfinite(t).all() for t in tensors.values())
    told = describe("micro-clip")
    assert told.pretrained and told.local_weights == str(WEIGHTS) and told.kind == "pairs"


def test_the_model_has_the_shipped_weights_and_split_attention(clip_model: Build) -> None:
    model = clip_model("micro-clip")
    assert model_info(model)["checkpoint"] == "clbench:micro-clip"
    assert model.input.size == 32 and model.input.tokenize is not None
    shipped = load_file(WEIGHTS)
    state = model.backbone.state_dict()
    assert torch.equal(state["token_embedding.weight"], shipped["token_embedding.weight"].float())
    query = state["visual.trunk.blocks.0.attn.q_proj.weight"]
    assert torch.equal(query, shipped["visual.trunk.blocks.0.attn.qkv.weight"].float()[:192])
    parts = [module for module in model.modules() if isinstance(module, SplitAttention)]
    assert len(parts) == 5 + 3


def test_plain_open_clip_takes_the_weights_and_gives_the_same(clip_model: Build) -> None:
    register()
    import open_clip

    plain = open_clip.CLIP(**CONFIG).eval()
    plain.load_state_dict({name: t.float() for name, t in load_file(WEIGHTS).items()})
    model = clip_model("micro-clip").eval()
    x, tokens = torch.randn(2, 3, 32, 32), tokenize(["a photo of a dog", "a photo of a cat"])
    out = model(Pairs(x, tokens))
    images, texts, scale = plain(x, tokens)
    torch.testing.assert_close(out.image, images, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.text, texts, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.scale, scale)


def test_untrained_on_request(clip_model: Build) -> None:
    model = clip_model("micro-clip?pretrained=false")
    assert model_info(model)["checkpoint"] is None and not describe("micro-clip?pretrained=false").pretrained
    shipped = load_file(WEIGHTS)["token_embedding.weight"].float()
    assert not torch.equal(model.backbone.token_embedding.weight, shipped)  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize("option", ["pretrained=2", "clamp=1", "norm=imagenet"])
def test_options_that_it_does_not_have(clip_model: Build, option: str) -> None:
    with pytest.raises(UserError, match=f"micro-clip\\?{option}"):
        clip_model(f"micro-clip?{option}")


def test_small_towers_for_quick_trials(clip_model: Build) -> None:
    model = clip_model("micro-clip?pretrained=false,width=16")
    parts = [module for module in model.modules() if isinstance(module, SplitAttention)]
    assert len(parts) == 2 and sum(p.numel() for p in model.parameters()) < 60_000
    out = model(Pairs(torch.randn(3, 3, 32, 32), model.tokenize(["a dog", "a cat", "a zebu"])))
    assert out.image is not None and out.text is not None
    assert out.image.shape == out.text.shape == (3, 16) and len(out.text.unique(dim=0)) == 3
    for wrong, said in (("pretrained=false,width=15", "even"), ("width=16", "add pretrained=false")):
        with pytest.raises(UserError, match=said):
            clip_model(f"micro-clip?{wrong}")


def test_own_weights_and_wrong_ones(clip_model: Build, tmp_path: Path) -> None:
    tensors = load_file(WEIGHTS)
    pretrain.export(clip_model("micro-clip?pretrained=false").backbone, tmp_path / "split.safetensors")
    with pytest.raises(UserError, match="do not fit"):
        clip_model(f"micro-clip@{tmp_path / 'split.safetensors'}")
    with pytest.raises(UserError, match="exclude each other"):
        clip_model(f"micro-clip@{tmp_path / 'split.safetensors'}?pretrained=false")
    from safetensors.torch import save_file

    save_file({name: t.float() + 1 for name, t in tensors.items()}, tmp_path / "own.safetensors")
    own = clip_model(f"micro-clip@{tmp_path / 'own.safetensors'}")
    torch.testing.assert_close(own.backbone.logit_scale, tensors["logit_scale"].float() + 1)
    assert model_info(own)["checkpoint"] == "file:own.safetensors"


# -- training --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[pretrain.Images], list[pretrain.Captioned]]]:
    """Two sets of five classes in batches of six images."""
    recipe = replace(
        pretrain.RECIPE,
        steps=6,
        locked=2,
        bank=2,
        locked_classes=3,
        quotas=(("one", 4), ("two", 2)),
        warmup=2,
        image_warmup=3,
    )
    monkeypatch.setattr(pretrain, "RECIPE", recipe)
    draw = torch.Generator().manual_seed(0)
    sets = [
        pretrain.Images(
            name,
            torch.randint(0, 256, (n, 3, 32, 32), generator=draw, dtype=torch.uint8),
            torch.randint(0, 5, (n,), generator=draw),
        )
        for name, n in (("one", 9), ("two", 3))
    ]
    names = ["dog", "cat", "house", "granny smith", "zqx"]
    captions = [pretrain.Captioned(tokenize([f"a photo of a {name}", name]), set(encode(name))) for name in names]
    yield sets, captions


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("stop", [1, 4])
def test_resumed_training_ends_with_the_same_bits(
    small: tuple[list[pretrain.Images], list[pretrain.Captioned]], tmp_path: Path, stop: int
) -> None:
    whole, first, second = pretrain.Training(), pretrain.Training(), pretrain.Training()
    pretrain.pretrain(whole, *small, tmp_path / "whole.pt")
    bank = pretrain.read_bank(first.model, small[0], len(small[1]))
    for step in range(stop):
        first.step(*pretrain.locked_batch(bank, small[1], step) if step < 2 else pretrain.training_batch(*small, step))
    first.save(tmp_path / "half.pt")
    second.load(tmp_path / "half.pt")
    assert second.done == stop and not equal(second.model, whole.model)
    pretrain.pretrain(second, *small, tmp_path / "half.pt")
    assert second.done == 6 and equal(second.model, whole.model)
    kept = load_file(MICRO_VIT)["patch_embed.layers.0.weight"].float()
    assert torch.equal(whole.model.visual.trunk.patch_embed.layers[0].weight, kept)
    assert not torch.equal(
        whole.model.visual.trunk.blocks[0].attn.qkv.weight, load_file(MICRO_VIT)["blocks.0.attn.qkv.weight"].float()
    )


def test_the_image_tower_is_locked_at_first(
    small: tuple[list[pretrain.Images], list[pretrain.Captioned]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pretrain, "RECIPE", replace(pretrain.RECIPE, steps=2))
    training, before = pretrain.Training(), pretrain.untrained()
    pretrain.pretrain(training, *small, tmp_path / "resume.pt")
    assert equal(training.model.visual.trunk, before.visual.trunk)
    assert not torch.equal(training.model.visual.head.proj.weight, before.visual.head.proj.weight)


def test_features_in_the_bank_are_those_of_the_classes(
    small: tuple[list[pretrain.Images], list[pretrain.Captioned]],
) -> None:
    model = pretrain.untrained()
    bank = pretrain.read_bank(model, small[0], 5)
    one = small[0][0]
    first = int(one.classes.min())
    [place] = (one.classes == first).nonzero()[0].tolist()
    with torch.no_grad():
        expected = model.visual.trunk(pretrain.normalise(one.images[place : place + 1].float() / 255))
    torch.testing.assert_close(bank.features[bank.places[first][0]], expected[0], rtol=0.05, atol=0.1)
    assert sorted(torch.cat(bank.places).tolist()) == list(range(len(bank.features)))


def test_texts_without_their_padding_have_the_same_embeddings() -> None:
    model = pretrain.untrained()
    tokens = tokenize(["a photo of a dog", "zqx", "a picture that shows a Granny-Smith"])
    torch.testing.assert_close(pretrain.encode_text(model, tokens), model.encode_text(tokens), rtol=1e-4, atol=1e-5)


def test_every_pass_over_a_set_shows_each_image_once(
    small: tuple[list[pretrain.Images], list[pretrain.Captioned]],
) -> None:
    one = small[0][0]
    rows = torch.cat([one.rows(start, 4) for start in range(0, 36, 4)])
    assert all(part.unique().tolist() == list(range(9)) for part in rows.split(9))
    assert not torch.equal(rows[:9], rows[9:18])


def test_images_go_with_a_caption_of_their_class(
    small: tuple[list[pretrain.Images], list[pretrain.Captioned]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "RECIPE", replace(pretrain.RECIPE, word_noise=0.0))
    sets, captions = small
    for step in range(3):
        x, tokens, own = pretrain.training_batch(sets, captions, step)
        assert x.shape == (6, 3, 32, 32) and tokens.shape[1] == CONTEXT
        labels = torch.cat([each.classes[each.rows(step * q, q)] for each, q in zip(sets, (4, 2), strict=True)])
        for label, place in zip(labels.tolist(), own.tolist(), strict=True):
            assert any(torch.equal(tokens[place], row) for row in captions[label].tokens)


def test_noise_leaves_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "RECIPE", replace(pretrain.RECIPE, word_noise=1.0))
    tokens = tokenize(["a photo of a granny smith"])
    noisy = pretrain.caption(pretrain.Captioned(tokens, set(encode("granny smith"))), torch.Generator().manual_seed(0))
    same = noisy == tokens[0]
    assert same.tolist()[:8] == [True, False, False, False, False, True, True, True]
    assert torch.equal(noisy[7:], tokens[0, 7:])


def test_rates_rise_stay_and_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "RECIPE", replace(pretrain.RECIPE, steps=100, anneal=0.4))
    rates = [pretrain.share_of_rate(step, 10) for step in range(100)]
    later = [pretrain.share_of_rate(step, 10, 20) for step in range(100)]
    assert later[19] == 0 and later[20] == 0.1 and later[30:] == rates[30:]
    assert rates[0] == 0.1 and rates[9] == rates[60] == 1.0 and rates[80] == 0.5 and rates[99] == pytest.approx(0.025)


# -- the card --------------------------------------------------------------------------------------------------------


def card_rows() -> dict[str, list[str]]:
    """Of the card's table of accuracies: the cells behind each set's name."""
    rows = [line.strip("| ").split(" | ") for line in CARD.read_text(encoding="utf-8").splitlines() if "|" in line]
    return {cells[0]: cells[1:] for cells in rows if len(cells) == 5}


def zero_shot(model: CLIP, images: Tensor, labels: Tensor, texts: list[str]) -> float:
    """Percent of images, uint8 [N, 3, 32, 32], whose class's text is the nearest."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.input.mean, model.input.std))
    with torch.no_grad():
        classes = model.encode_text(model.tokenize(texts))
        found = [
            (model.encode_image((part / 255 - mean) / std) @ classes.T).argmax(1) for part in images.float().split(256)
        ]
    return 100 * float((torch.cat(found) == labels).float().mean())


@pytest.mark.skipif(not os.environ.get("CLBENCH_DATA"), reason="CLBENCH_DATA names no folder of real sets")
def test_the_card_tells_the_accuracy_of_the_shipped_weights(clip_model: Build) -> None:
    from clbench.data.images import load_images

    if not (Path(os.environ["CLBENCH_DATA"]) / "images" / "pacs_cartoon").is_dir():
        pytest.skip("no pacs_cartoon under CLBENCH_DATA")
    data = load_images("pacs_cartoon", "test", size=32)
    texts = [str(data.info["caption_template"]).format(name) for name in data.class_names]
    texts = [text.replace(" a elephant", " an elephant") for text in texts]
    images, labels = torch.from_numpy(data.x), torch.from_numpy(data.y)
    found = zero_shot(clip_model("micro-clip").eval(), images, labels, texts)
    role, classes, chance, accuracy = card_rows()["pacs_cartoon"]
    assert (role, classes, chance) == ("held out", "7", "14.3")
    assert found == pytest.approx(float(accuracy), abs=0.7)  # two of 333 images


def test_the_card_names_the_sets_it_was_trained_on() -> None:
    rows, quotas = card_rows(), dict(pretrain.Recipe().quotas)
    assert {name.partition(" (")[0] for name, cells in rows.items() if cells[0] == "pool"} == set(quotas)
    from clbench.streams.fomo_presets import CLIP_POOL

    assert {name.partition("@")[0] for name in CLIP_POOL} == set(quotas)
