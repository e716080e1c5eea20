"""Random resized crops: where they lie, what they show, and that nothing else draws differently for them."""

from __future__ import annotations

import torch

from clbench.stream import Augmentation
from clbench.transforms import _boxes, _resized, augment


def test_boxes_lie_inside_and_have_the_area_and_shape_asked_for() -> None:
    top, left, h, w = _boxes(4000, 60, 60, 0.25, torch.Generator().manual_seed(0))
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= 60).all() and (left + w <= 60).all()
    area, shape = (h * w) / 3600, w / h
    assert area.min() >= 0.23 and area.max() > 0.95
    assert shape.min() >= 0.7 and shape.max() <= 1.43
    assert 0.95 < shape.log().exp().median() < 1.05  # wide and tall ones alike
    assert (top == 60 - h).any() and (top == 0).any()


def test_a_box_of_the_whole_image_is_the_image() -> None:
    images = torch.randint(0, 256, (3, 3, 7, 9), dtype=torch.uint8)
    nothing, h, w = torch.zeros(3, dtype=torch.long), torch.full((3,), 7), torch.full((3,), 9)
    assert torch.equal(_resized(images, nothing, nothing, h, w), images)


def test_a_box_is_enlarged_as_interpolation_does_it() -> None:
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    top, left, h, w = (torch.tensor(v) for v in ([3, 0], [5, 2], [7, 16], [9, 11]))
    found = _resized(images, top, left, h, w)
    for i in range(2):
        box = images[i : i + 1, :, top[i] : top[i] + h[i], left[i] : left[i] + w[i]].float()
        expected = torch.nn.functional.interpolate(box, (16, 16), mode="bilinear", align_corners=False)
        assert (found[i].float() - expected[0]).abs().max() <= 0.51


def test_a_stream_without_a_crop_keeps_its_hash() -> None:
    assert Augmentation(pad=2).as_list() == [2, False] and Augmentation(pad=2, crop=0.5).as_list() == [2, False, 0.5]


def test_equal_generators_give_equal_crops() -> None:
    images = torch.randint(0, 256, (6, 3, 12, 12), dtype=torch.uint8)
    how = Augmentation(flip=True, crop=0.08)
    first, second = (augment(images, how, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(first, images) and first.dtype == torch.uint8
