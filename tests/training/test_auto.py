"""What `auto` becomes: by the nearest other images, and never in the place of a value."""

import pytest
import torch
from conftest import sample_digits

from cgan.base.errors import DataError
from cgan.data.images import Images
from cgan.params.sections import AutoTrainParams
from cgan.training import auto
from cgan.training.auto import MAX_EASY_DISTANCE, MAX_SAMPLE, choose, choose_gan, measure_neighbours

CHOICES = AutoTrainParams()
AUTO = [
    "updates",
    "generator",
    "auxiliary_generator",
    "class_logit_weight",
    "max_shift",
    "total_kimg",
]
EASY = ("one_pass", "deconv", 0.0, 1.25, 0, 160.0)
HARD = ("two_passes", "deconv", 0.5, 1.0, 2, 190.0)


def digits(count: int) -> Images:
    images, labels = sample_digits()
    rows = torch.randperm(5000, generator=torch.Generator().manual_seed(0))[:count]
    return Images(images[rows], labels[rows], [*map(str, range(10))], notes=())


def photographs(side: int, count: int = 60) -> Images:
    """Noise: no image is nearer to another than chance has it, and none has a plain ground."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 1, side, side), dtype=torch.uint8, generator=random)
    return Images(images, torch.arange(count) % 3)


def chosen(data: Images) -> tuple[float | str, ...]:
    params = choose_gan(CHOICES, data).params
    return tuple(getattr(params, name) for name in AUTO)


def test_many_digits_are_trained_as_before_and_few_with_help() -> None:
    many, few = digits(5000), digits(1000)
    assert chosen(many) == EASY and chosen(few) == HARD
    assert not choose_gan(CHOICES, many).advice and "700" in choose_gan(CHOICES, few).advice
    assert measure_neighbours(many).distance < MAX_EASY_DISTANCE - 0.01
    assert measure_neighbours(few).distance > MAX_EASY_DISTANCE + 0.01


def test_what_is_chosen_depends_on_no_order() -> None:
    """A CSV can be sorted by class, and 4,000 images, at most, are looked at."""
    pixels, labels, _ = digits(5000).tensors
    order = labels.argsort()
    found = measure_neighbours(Images(pixels[order], labels[order]))
    assert found == pytest.approx(measure_neighbours(Images(pixels, labels)), abs=0.02)
    many, plain = photographs(8, MAX_SAMPLE), torch.zeros(MAX_SAMPLE, 1, 8, 8, dtype=torch.uint8)
    for images in ([many.tensors.pixels, plain], [plain, many.tensors.pixels]):
        both = Images(torch.cat(images), many.tensors.labels.repeat(2))
        assert choose_gan(CHOICES, both).params.generator == "deconv"


def test_classes_that_look_alike_are_hard() -> None:
    data = digits(5000)
    assert measure_neighbours(data).same_class > 0.9
    pixels, labels, _ = data.tensors
    mixed = Images(pixels, labels[torch.randperm(5000)])
    found = measure_neighbours(mixed)
    assert found.same_class == pytest.approx(found.chance, abs=0.05)
    assert chosen(mixed) == HARD and "local_score" not in choose_gan(CHOICES, mixed).advice
    colour = Images(pixels.expand(-1, 3, -1, -1), mixed.tensors.labels)
    assert chosen(colour) == (HARD[0], "upsample", *HARD[2:])
    assert "local_score" in choose_gan(CHOICES, colour).advice
    one = Images(pixels, torch.zeros_like(labels), data.class_names)
    assert chosen(one) == EASY, "a single class cannot be mistaken"


@pytest.mark.parametrize(("side", "shift"), [(15, 0), (16, 1), (64, 4)])
def test_a_shift_goes_with_the_side(side: int, shift: int) -> None:
    assert chosen(photographs(side)) == (HARD[0], "upsample", *HARD[2:4], shift, *HARD[5:])


def test_the_distance_is_0_for_copies_and_1_for_noise() -> None:
    pixels, labels, _ = photographs(16).tensors
    assert measure_neighbours(Images(pixels, labels)).distance == pytest.approx(1, abs=0.1)
    faint = measure_neighbours(Images(pixels // 8, labels)).distance
    assert faint == pytest.approx(1, abs=0.1), "whatever the contrast"
    twice = measure_neighbours(Images(pixels.repeat(2, 1, 1, 1), labels.repeat(2)))
    assert twice.distance < 0.01 and twice.same_class == 1
    assert measure_neighbours(Images(torch.full_like(pixels, 9), labels)).distance == 0


def test_a_value_in_params_stays_and_is_not_said_to_be_chosen() -> None:
    images = photographs(32)
    found = choose(CHOICES.model_copy(update={"max_shift": 1, "total_kimg": 7.0}), images)
    assert (found.params.max_shift, found.params.total_kimg) == (1, 7.0)
    assert [choose_gan(CHOICES, digits(n)).params.batch_size for n in (96, 95, 2)] == [96, 94, 2]
    assert found.params.class_logit_weight == 1 and "700" not in found.advice
    assert found.explanation.startswith("generator upsample, auxiliary_generator 0.5, class_logit")
    assert "distance 0.96" in found.explanation and "batch_size 60 (60 im" in found.explanation
    assert "max_shift" not in found.explanation
    in_one_pass = choose_gan(CHOICES.model_copy(update={"updates": "one_pass"}), images).params
    assert in_one_pass.auxiliary_generator == 0, "one pass has no loss of the generator's own"
    asked = CHOICES.model_copy(update={"auxiliary_generator": 0.3})
    assert choose_gan(asked, digits(5000)).params.updates == "two_passes"


def test_the_demo_has_its_own_losses_whatever_the_params_say() -> None:
    demo = CHOICES.model_copy(update={"generator": "demo", "max_shift": 3, "r1_gamma": 1.0})
    found = choose(demo, photographs(28))
    assert (found.params.max_shift, found.params.r1_gamma) == (0, 0)
    assert found.params.auxiliary_discriminator == found.params.class_logit_weight == 0
    assert not {"updates", "r1_gamma", "max_shift"} & found.params.relevant().keys()


def test_auto_takes_a_sampler_for_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    images = photographs(32)
    found = choose(CHOICES, images)
    assert found.model and found.params.generator == "local_score"
    assert found.explanation.startswith("generator local_score (photographs)")
    assert "training images" in found.advice
    assert choose(CHOICES, digits(5000)).params == choose_gan(CHOICES, digits(5000)).params
    for asked in ({"total_kimg": 50.0}, {"generator": "upsample"}):
        gan = choose(CHOICES.model_copy(update=asked), images)
        assert gan.model is None and gan.params.generator != "local_score"
    monkeypatch.setattr(auto, "MAX_JUDGED_DRAWINGS_S", 1.0)
    assert choose(CHOICES, images).model is None
    wanted = {"generator": "local_score", "score_window_scale": 0.7}
    found = choose(CHOICES.model_copy(update=wanted), images)
    assert found.model and found.model.params == {"score_window_scale": 0.7}, (
        "asked for, it is taken"
    )
    assert found.params.relevant() == wanted
    monkeypatch.undo()
    without = Images(images.pixels, images.labels, list("abcd"))
    with pytest.raises(DataError, match="there are none of d"):
        choose(CHOICES.model_copy(update=wanted), without)
    assert choose(CHOICES, without).model is None, "auto takes what can draw"
