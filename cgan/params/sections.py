"""The params as frozen models, a section each: every key with its type, its limits and its default.

params.yaml shows the same defaults with comments, and a test keeps the two equal. `AutoTrainParams()` and the
others are built without a file; `cgan.pipeline.params_file` reads one.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from cgan.base.settings import setting
from cgan.models.kinds import KINDS

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Side = Annotated[int, Field(ge=8, le=256)]  # of an image, in pixels
Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1_000_000)]  # of a term of a loss
Kimg = Annotated[float, Field(gt=0, le=1_000_000)]  # of a training, in thousands of images
Auto = Literal["auto"]
Updates = Literal["one_pass", "two_passes"]
# Params that the demo's networks and losses do not know.
NOT_IN_DEMO = (
    *("discriminator_width", "max_width", "auxiliary_discriminator", "auxiliary_generator"),
    *("class_logit_weight", "max_shift", "r1_gamma", "updates", "adam_beta1"),
)


class Section(BaseModel):
    """Strict: no text becomes a number and no `true` a 1. Unknown keys, inf and nan are refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def _text_check(is_valid: Callable[[str], bool], problem: str) -> AfterValidator:
    """A check of a text. The message quotes the text, and says what is wrong with it."""

    def check(text: str) -> str:
        if not is_valid(text):
            raise ValueError(f"{text[:80]!r} {problem}")
        return text

    return AfterValidator(check)


def _stays_inside(name: str) -> bool:
    parts = re.split(r"[\\/]", name)
    return bool(parts[0]) and ".." not in parts and ":" not in parts[0]


def _check_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text[:80]!r} is no regular expression: {error}") from None
    return text


_Printable = _text_check(str.isprintable, "holds characters that cannot be shown. Remove them")
_Inside = _text_check(_stays_inside, "leads outside. Give a relative name without `..`")
# In a text to draw, commas and spaces stand between the names of classes.
_OneClass = _text_check(
    lambda name: "," not in name and name == name.strip(),
    "has a comma, or a space at an end. Remove it",
)
_Kind = _text_check(lambda name: name in ("auto", *KINDS), f"is none of auto, {', '.join(KINDS)}")

PrintableText = Annotated[str, Field(min_length=1), _Printable]  # on one line
GroupPattern = Annotated[PrintableText, AfterValidator(_check_pattern)]
RelativeName = Annotated[PrintableText, _Inside]  # in the folder where it is looked up
ClassName = Annotated[str, Field(min_length=1, max_length=60), _Printable, _OneClass]
# MLflow takes none that is longer.
ExperimentName = Annotated[str, Field(min_length=1, max_length=500), _Printable, _Inside]


class _Sized(Section):
    height: Side | None = None
    width: Side | None = None

    @model_validator(mode="after")
    def _both_sides(self) -> Self:
        if (self.height is None) != (self.width is None):
            raise ValueError("give both `height` and `width`, or neither")
        return self


class SourceFormatParams(_Sized):
    """Options of reading: the CSV to take out of a .zip, and the size that pictures are made."""

    member: RelativeName = "train.csv"
    fit: Literal["crop", "pad"] = "crop"


class DataParams(SourceFormatParams):
    """Stage download: where the CSV or the pictures come from."""

    source: Literal["sample", "file", "kaggle"] = "sample"
    path: PrintableText = "data/inbox"
    kaggle: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")] = (
        "digit-recognizer"
    )


class ValidateParams(_Sized):
    """Stages validate and preprocess: what the CSV's columns hold, and how many images a class needs."""

    label_column: PrintableText = "label"
    classes: Annotated[int | None, Field(ge=2, le=1000)] = None
    class_names: list[ClassName] | None = None
    channels: Literal[1, 3] = 1
    min_per_class: Annotated[int, Field(ge=2)] = 10

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = self.class_names
        if names is None:
            return self
        if not len({*names}) == len(names) == max(2, self.classes or len(names)):
            raise ValueError(
                f"`class_names` has {len(names):,} names, {len({*names}):,} different ones, and `classes` is "
                f"{self.classes or 'null'}. Give each class its own, in the order of their numbers, or null"
            )
        return self

    @property
    def class_count(self) -> int | None:
        """The number of classes, where it is given."""
        return len(self.class_names) if self.class_names else self.classes


class PreprocessParams(Section):
    """Stage preprocess: the part of the images that is held out. Stage validate reads `group`, too."""

    holdout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    group: GroupPattern | None = None
    seed: Seed = 1


class ReadParams(SourceFormatParams, ValidateParams):  # the options of `cgan.read`
    group: GroupPattern | None = None


class JudgeParams(Section):
    """Stage train_judge: the classifier behind the metrics."""

    total_kimg: Kimg = 40.0
    seed: Seed = 1


class AutoTrainParams(Section):
    """Stage train, as the user gives it: networks, losses, length and machine of the training.

    Some params may be `auto`. `cgan.training.auto.choose` gives each of these a value that suits the images;
    the result is a `TrainParams`.
    """

    generator: Annotated[str, _Kind] = "auto"
    score_window_scale: Annotated[float, Field(ge=0.1, le=10)] | Auto = "auto"
    latent_dim: Annotated[int, Field(gt=0, le=4096)] = 64
    generator_width: Annotated[int, Field(gt=0, le=1024)] = 16
    discriminator_width: Annotated[int, Field(gt=0, le=1024)] = 16
    max_width: Annotated[int, Field(gt=0, le=4096)] = 512
    auxiliary_discriminator: Weight = 2.0
    auxiliary_generator: Weight | Auto = "auto"
    class_logit_weight: Weight | Auto = "auto"
    max_shift: Annotated[int, Field(ge=0, le=64)] | Auto = "auto"
    r1_gamma: Weight = 0.3
    updates: Literal[Auto, Updates] = "auto"
    lr: Annotated[float, Field(gt=0, le=1000)] = 0.0045
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.0
    decay_from: Fraction = 0.4
    batch_size: Annotated[int, Field(ge=2, le=1_000_000, multiple_of=2)] = 96
    total_kimg: Kimg | Auto = "auto"
    ema_half_life_kimg: Annotated[float, Field(ge=0)] = 10.0
    seed: Seed = 1
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$")] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    probes: Annotated[int, Field(ge=0, le=1000)] = 8

    @model_validator(mode="after")
    def _check_one_pass(self) -> Self:
        if self.updates == "one_pass" and self.auxiliary_generator not in (0, "auto"):
            raise ValueError(
                f"{setting('updates', 'one_pass')} has no loss of the generator's own: set "
                f"`auxiliary_generator` to 0.0, or choose {setting('updates', 'two_passes')}"
            )
        return self


class TrainParams(AutoTrainParams):
    """Stage train, as it runs: every `auto` that its kind of generator uses has a value.

    `device` and `precision`, which depend on the machine, may still be `auto`.
    """

    auxiliary_generator: Weight
    class_logit_weight: Weight
    max_shift: Annotated[int, Field(ge=0, le=64)]
    updates: Updates
    total_kimg: Kimg

    @property
    def is_demo(self) -> bool:
        """True where networks, losses, optimizer and update are those of the demo."""
        return self.generator == "demo"

    @property
    def total_steps(self) -> int:
        steps = max(1, round(self.total_kimg * 1000 / self.batch_size))
        return steps if KINDS[self.generator].is_trained else 0

    def relevant(self) -> dict[str, Any]:
        """The params that have an effect on this kind of generator, by name."""
        kind = KINDS[self.generator]
        if not kind.is_trained:
            return self.model_dump(include={"generator", *kind.params})
        unused = {name for other in KINDS.values() for name in other.params}
        return self.model_dump(exclude=unused.union(NOT_IN_DEMO if self.is_demo else ()))


class EvaluateParams(Section):
    """Stage evaluate, and the gate: how many drawings are judged."""

    samples: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    gan_train_kimg: Annotated[float | None, Field(ge=0, le=1_000_000)] = None
    seed: Seed = 1001


class GateParams(Section):
    """`cgan gate`: the limits that a generator must keep to be promoted."""

    model: Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][\w.-]*$")] = "cgan"
    promote: bool = True
    against_champion: Literal["better", "not_worse"] = "better"
    max_class_shift: Annotated[float, Field(ge=0)] = 0.5
    max_drawn_shift: Annotated[float, Field(ge=0)] = 0.5
    max_outliers: Fraction = 0.02
    min_relative_accuracy: Fraction = 0.96
    max_fid_over_floor: Annotated[float, Field(ge=0)] = 0.6
    max_copies_over_floor: Fraction = 0.02
    min_worst_class_diversity: Fraction = 0.80
    min_judge_accuracy: Fraction = 0.90


class SweepAxis(Section):
    """The values of a param that a sweep tries: `choices`, or from `low` to `high`, integers if both are."""

    low: int | float = 0
    high: int | float = 0
    log: bool = False  # logarithmic: as many trials from 0.001 to 0.01 as from 0.01 to 0.1
    choices: Annotated[list[bool | int | float | str], Field(min_length=2)] | None = None

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if not self.choices and self.low >= self.high:
            raise ValueError(f"give `choices`, or `low` ({self.low}) below `high` ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError("with `log`, `low` must be above 0")
        return self

    def has(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        return value != "auto" and bool(self.low <= value <= self.high)


# A search over the seed would pick luck; by other probes, trials could not be compared.
SEARCHABLE = {f"train.{name}" for name in AutoTrainParams.model_fields} - {
    "train.seed",
    "train.probes",
}
_Searchable = _text_check(SEARCHABLE.__contains__, "is no param of `train` that can be searched")


class SweepParams(Section):
    """`python -m flows.sweep`: a search for better values of the section `train`."""

    objective: str = "fid_judge"
    space: Annotated[dict[Annotated[str, _Searchable], SweepAxis], Field(min_length=1)] = {
        "train.lr": SweepAxis(low=1.5e-3, high=1.2e-2, log=True),
        "train.generator_width": SweepAxis(choices=[8, 12, 16, 24]),
        "train.discriminator_width": SweepAxis(choices=[8, 12, 16, 24]),
        "train.auxiliary_discriminator": SweepAxis(low=0.5, high=4.0),
        "train.ema_half_life_kimg": SweepAxis(low=2.0, high=30.0, log=True),
    }


class TrackingParams(Section):
    """The experiment of MLflow in which runs are recorded."""

    experiment: ExperimentName = "cgan"


class Params(Section):
    """The whole file, a field per section."""

    data: DataParams = DataParams()
    validation: ValidateParams = Field(default=ValidateParams(), alias="validate")
    preprocess: PreprocessParams = PreprocessParams()
    train_judge: JudgeParams = JudgeParams()
    train: AutoTrainParams = AutoTrainParams()
    evaluate: EvaluateParams = EvaluateParams()
    gate: GateParams = GateParams()
    sweep: SweepParams = SweepParams()
    tracking: TrackingParams = TrackingParams()


def flatten(value: BaseModel | dict[str, Any]) -> dict[str, Any]:
    """Nested params → {"train.lr": 0.003, …}; of a model, those that were set."""
    flat: dict[str, Any] = {}
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True, exclude_unset=True)
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= {f"{key}.{name}": leaf for name, leaf in flatten(item).items()}
        else:
            flat[key] = item
    return flat


def param_names() -> list[str]:
    """Every dotted key that params.yaml may hold."""
    return [
        f"{section.alias or name}.{key}"
        for name, section in Params.model_fields.items()
        for key in section.annotation.model_fields  # type: ignore[union-attr]
    ]
