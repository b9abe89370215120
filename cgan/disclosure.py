"""`cgan.sharing`: may the drawings be shared in place of the images?"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cgan.attacks.attacker import BY_PIXELS, Attacker, drawings_to_attack
from cgan.attacks.membership import FloatArray, standardised
from cgan.attacks.sharing import Copies, NearestMember, Sharing
from cgan.contact_sheet import add_row_names, arrange_by_class
from cgan.downstream.alone import drawings_alone
from cgan.downstream.pretrained import is_installed
from cgan.downstream.rounds import require_seeds, units_of
from cgan.errors import CganError, DataError
from cgan.images import Images
from cgan.model.hardware import choose_hardware, deterministic
from cgan.model.model_file import digest_of
from cgan.model.networks import DiscriminatorNetwork, GeneratorNetwork
from cgan.notebook import progress_bar
from cgan.params.sections import JudgeParams
from cgan.quality.evaluate import require_disjoint, require_same_classes
from cgan.quality.judge import Progress
from cgan.quality.likeness import nearest_neighbours
from cgan.text import listed

if TYPE_CHECKING:
    from cgan.drawing.generator import Generator

NEAREST_MEMBERS = 10  # training images that drawings come nearest to, which are shown


def sharing(
    train: Images,
    held_out: Images,
    generator: Generator | Images,
    *,
    discriminator: DiscriminatorNetwork | None = None,
    seeds: int = 3,
    recipe: JudgeParams | None = None,
    pretrained: bool | None = None,
    device: str = "auto",
    seed: int = 1,
    progress: Progress = progress_bar,
) -> Sharing:
    """Ask what drawings can do in place of the images that must not be shared, and what they give away.

    *Instead of the images*: classifiers trained on drawings alone, of each class as many as `train` has or
    all where there are fewer, and on `train`, `seeds` of each; both tested on `held_out`. `recipe`: their
    network and length.

    *Who was in it*: can an attacker who has the drawings tell the images of `train` from those of
    `held_out`? He asks how near the nearest drawing of the class lies, by pixels and by the features of a
    pretrained network (`pretrained`: None where it is installed), relative to the nearest other real image
    (after GAN-Leaks, Chen et al., arXiv:1909.03935). `held_out` has to be split off at random: where it comes
    from another source, the attack tells the sources apart, and the drawings seem to leak. The answers are
    the AUC, and the share of members found at false positive rates of 1 % and 0.1 % (Carlini et al.,
    arXiv:2112.03570). Of a group of images one counts. The same is asked of the generator's file, by
    reconstruction of some images, and of `discriminator` (LOGAN, Hayes et al., arXiv:1705.07663).

    `generator`: the one that was trained on `train`; or drawings by any such generator, as `Images`, whose
    file is then not attacked. `seed`: of the drawings, and of which images are looked at. Takes minutes.

    Raises DataError where the sets do not belong together, too few are held out or no drawing is of a class
    of `train`, CganError for fewer than two seeds.
    """
    _check(train, held_out, generator, discriminator, seeds)
    hardware, recipe = choose_hardware(device, "auto"), recipe or JudgeParams()
    attacker = Attacker.of(train, held_out, seed)
    with deterministic():
        if isinstance(generator, Images):
            drawn, model = generator, None
        else:
            model = generator.model
            drawn = drawings_to_attack(model, train, seed)
        alone = as_many_of_each_class(drawn, train, seed)
        utility = drawings_alone(
            train, alone, held_out, units_of(held_out), recipe, seeds, hardware, progress
        )
        if pretrained is None:
            pretrained = is_installed()
        scores = attacker.drawing_scores(drawn, pretrained, progress)
        generator_attack = None
        if isinstance(model, GeneratorNetwork):
            generator_attack = attacker.on_generator(model, progress)
        copies = Copies.of(drawn, train, held_out, seed)
    nearest_members, picture = _nearest_members(train, attacker, scores[BY_PIXELS], drawn)
    return Sharing(
        utility=utility,
        drawing_attacks=tuple(attacker.on_drawings(scores)),
        copies=copies,
        nearest_members=nearest_members,
        train_images=len(train),
        held_out_images=len(held_out),
        drawings=len(drawn),
        learnt_drawings=len(alone),
        not_drawn=tuple(
            name for name, count in zip(train.class_names, drawn.counts, strict=True) if not count
        ),
        class_names=tuple(train.class_names),
        generator_attack=generator_attack,
        discriminator_attack=attacker.on_discriminator(discriminator) if discriminator else None,
        holds_training_images=getattr(generator, "holds_training_images", False),
        generator_digest=digest_of(model.state_dict()) if model is not None else None,
        picture=picture,
    )


def _check(
    train: Images,
    held_out: Images,
    generator: Generator | Images,
    discriminator: DiscriminatorNetwork | None,
    seeds: int,
) -> None:
    for name, images in (("train", train), ("held_out", held_out)):
        if not isinstance(images, Images):
            raise CganError(
                f"cgan.sharing: expected labelled images as {name}, found {type(images).__name__}. Make them "
                "with `cgan.read(path)` or `cgan.Images(pixels, labels)`."
            )
    require_seeds(seeds)
    parts, kinds = {"held_out": held_out}, dict[str, tuple[int, ...]]()
    if isinstance(generator, Images):
        if not len(generator):
            raise DataError("generator: expected drawings, found none.")
        parts["generator"] = generator
    elif hasattr(generator, "model"):
        kinds["generator"] = generator.model.classes, *generator.model.shape
    else:
        raise CganError(
            f"cgan.sharing: expected a generator or drawings third, found {type(generator).__name__}. Give "
            "`run.generator`, `cgan.Generator.load(path)`, or `cgan.read(folder)` with drawings."
        )
    if isinstance(discriminator, DiscriminatorNetwork):
        sizes = discriminator.architecture
        kinds["discriminator"] = sizes.classes, sizes.channels, sizes.height, sizes.width
    elif discriminator is not None:
        raise CganError(
            f"cgan.sharing: expected `run.discriminator`, found {type(discriminator).__name__}."
        )
    kinds |= {name: (images.classes, *images.shape) for name, images in parts.items()}
    expected = train.classes, *train.shape
    for name, found in kinds.items():
        if found != expected:
            raise DataError(
                f"{name}: expected the classes, channels, height and width of train, {expected}; found "
                f"{found}. Give images of one kind, and networks that were trained on such images."
            )
    require_same_classes(train, **parts)
    require_disjoint(train, held_out)


def as_many_of_each_class(drawn: Images, train: Images, seed: int) -> Images:
    """Of each class as many drawings as `train` has images, chosen at random; where there are fewer, all."""
    order = np.random.default_rng(seed).permutation(len(drawn))
    chosen = [
        order[drawn.labels[order] == label][:count] for label, count in enumerate(train.counts)
    ]
    rows = np.sort(np.concatenate(chosen))
    if not len(rows):
        names = [drawn.class_names[label] for label in np.flatnonzero(drawn.counts)]
        raise DataError(
            f"generator: expected drawings of classes that train has images of, found only {listed(names)}."
        )
    return drawn.at(rows)


def _nearest_members(
    train: Images, attacker: Attacker, scores: FloatArray, drawn: Images
) -> tuple[tuple[NearestMember, ...], bytes]:
    """The training images that drawings come nearest to, by scores that are compared within strata, as the
    attack compares them; and a picture of both."""
    has_drawings = drawn.counts[attacker.labels] > 0
    known = np.flatnonzero(attacker.member & has_drawings)
    nearest_first = np.argsort(-standardised(scores, attacker.strata)[known], kind="stable")
    rows = attacker.member_rows.numpy()[known[nearest_first[:NEAREST_MEMBERS]]]
    if not len(rows):
        return (), b""
    members = train.at(rows)
    _, nearest_drawings = nearest_neighbours(
        members.tensors.pixels, members.tensors.labels, *drawn.tensors[:2]
    )
    drawings = nearest_drawings[:, 0].numpy()
    nearest_members = tuple(
        NearestMember(
            row=int(row),
            place=train.place(int(row)),
            class_name=train.class_names[label],
            drawing=int(drawing),
        )
        for row, label, drawing in zip(rows, members.labels, drawings, strict=True)
    )
    pixels = np.concatenate([members.pixels, drawn.pixels[drawings]])
    is_drawn = np.arange(2).repeat(len(members))  # so a row of training images and one of drawings
    sheet = arrange_by_class(pixels, is_drawn, np.arange(len(pixels)), 2)
    png = io.BytesIO()
    Image.fromarray(add_row_names(sheet, ["in training", "drawn"])).save(png, format="PNG")
    return nearest_members, png.getvalue()
