"""params.yaml → frozen models. Every check of a parameter is here, and all faults are told at once.

Only DVC overrides a value (`dvc exp run -S`): it rewrites params.yaml before a stage reads it.
"""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from cgan.errors import ParamsError

MAX_BYTES = 1_000_000
MAX_ALIASES = 20


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def _inside(name: str) -> str:
    parts = re.split(r"[\\/]", name)
    if not parts[0] or ".." in parts or ":" in parts[0]:
        raise ValueError(f"{name[:80]!r} leads outside. Give a relative name without `..`")
    return name


Inside = Annotated[str, Field(min_length=1), AfterValidator(_inside)]
"""A name or relative path that stays where it is looked up."""


class DataParams(Section):
    source: Literal["sample", "file", "kaggle"]
    path: str = Field(min_length=1)
    kaggle: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
    member: Inside
    max_megabytes: int = Field(gt=0)


class ValidateParams(Section):
    label_column: str = Field(min_length=1)
    classes: int | None = Field(ge=2, le=1000)
    channels: Literal[1, 3]
    height: int | None = Field(ge=8, le=256)
    width: int | None = Field(ge=8, le=256)
    min_per_class: int = Field(ge=2)
    max_imbalance: float = Field(ge=1)

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.height is None) != (self.width is None):
            raise ValueError("give both `height` and `width`, or neither (square images)")
        return self


class PreprocessParams(Section):
    holdout_fraction: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0, lt=2**31)


class JudgeParams(Section):
    total_kimg: float = Field(gt=0, le=1_000_000)
    batch_size: int = Field(ge=2)
    lr: float = Field(gt=0, le=1)
    width: int = Field(ge=4, le=512)
    seed: int = Field(ge=0, lt=2**31)


class TrainParams(Section):
    generator: Literal["deconv", "upsample", "embed", "seed"]
    discriminator: Literal["projection", "seed"]
    latent_dim: int = Field(gt=0, le=4096)
    generator_width: int = Field(gt=0, le=1024)
    discriminator_width: int = Field(gt=0, le=1024)
    objective: Literal["logistic", "least_squares"]
    auxiliary_discriminator: float = Field(ge=0)
    auxiliary_generator: float = Field(ge=0)
    r1_gamma: float = Field(ge=0)
    r1_every: int = Field(gt=0)
    discriminator_batch: Literal["joint", "separate"]
    optimizer: Literal["adam", "adadelta"]
    lr: float = Field(gt=0)
    adam_beta1: float = Field(ge=0, lt=1)
    adam_beta2: float = Field(ge=0, lt=1)
    adadelta_rho: float = Field(gt=0, lt=1)
    adadelta_eps: float = Field(gt=0)
    gradient_clip: float = Field(ge=0)
    decay_from: float = Field(ge=0, le=1)
    final_lr_fraction: float = Field(ge=0, le=1)
    batch_size: int = Field(ge=2)
    cpu_parts: int = Field(ge=1, le=64)
    total_kimg: float = Field(gt=0, le=1_000_000)
    ema_half_life_kimg: float = Field(ge=0)
    seed: int = Field(ge=0, lt=2**31)
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "float32", "bfloat16"]
    log_every: int = Field(gt=0, le=10_000)  # so many latents are prepared at once
    save_every: int = Field(gt=0)
    probes: int = Field(ge=0, le=1000)
    previews: int = Field(ge=0, le=1000)

    @property
    def total_steps(self) -> int:
        return max(1, round(self.total_kimg * 1000 / self.batch_size))

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.save_every % self.log_every:
            raise ValueError(
                f"`save_every` ({self.save_every}) must be a multiple of `log_every` "
                f"({self.log_every}): a checkpoint falls on a record"
            )
        if self.batch_size % self.cpu_parts:
            raise ValueError(
                f"`batch_size` ({self.batch_size}) must be a multiple of `cpu_parts` "
                f"({self.cpu_parts})"
            )
        if self.discriminator == "seed" and self.discriminator_batch == "joint":
            raise ValueError(
                "`discriminator: seed` has batch norm and needs `discriminator_batch: separate`"
            )
        if self.discriminator == "seed" and (
            self.auxiliary_discriminator or self.auxiliary_generator
        ):
            raise ValueError(
                "`discriminator: seed` has no auxiliary classes: set `auxiliary_discriminator` and "
                "`auxiliary_generator` to 0.0"
            )
        return self


class EvaluateParams(Section):
    samples: int = Field(ge=100, le=1_000_000)
    draws: int = Field(ge=1, le=100)
    gan_train_kimg: float = Field(ge=0, le=1_000_000)
    seed: int = Field(ge=0, lt=2**31)


class RenderParams(Section):
    columns: int = Field(gt=0, le=100)
    steps: int = Field(ge=2, le=100)
    seed: int = Field(ge=0, lt=2**31)


class GateParams(Section):
    model: str = Field(max_length=100, pattern=r"^[A-Za-z0-9][\w.-]*$")
    promote: bool
    against_champion: Literal["better", "not_worse"]
    min_conditional_accuracy: float = Field(ge=0, le=1)
    min_worst_class_accuracy: float = Field(ge=0, le=1)
    max_fid_over_floor: float = Field(ge=0)
    min_coverage_of_floor: float = Field(ge=0, le=1)
    max_copies_over_floor: float = Field(ge=0, le=1)


class ReevaluateParams(Section):
    max_feature_distance: float = Field(gt=0)
    max_agreement_drop: float = Field(ge=0, le=1)


class TrackingParams(Section):
    experiment: Inside
    on_unreachable: Literal["spool", "fail"]
    system_metrics: bool


class Params(Section):
    data: DataParams
    validation: ValidateParams = Field(alias="validate")
    preprocess: PreprocessParams
    train_judge: JudgeParams
    train: TrainParams
    evaluate: EvaluateParams
    render: RenderParams
    gate: GateParams
    reevaluate: ReevaluateParams
    tracking: TrackingParams


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and alias bombs."""

    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_ALIASES:
                raise ParamsError(
                    f"more than {MAX_ALIASES} YAML aliases. Write the values out instead."
                )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise ParamsError(
                    f"key `{name}` stands twice, in lines {seen[name]} and "
                    f"{key.start_mark.line + 1}. Keep one of them."
                )
            seen[name] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def read_yaml(path: Path | str) -> Any:
    """The YAML document in `path`. Raises ParamsError with line and column where it is not valid."""
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: not found in {Path.cwd()}. Run from the project's top folder."
        ) from None
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror}).") from None
    if len(raw) > MAX_BYTES:
        raise ParamsError(f"{path}: {len(raw):,} bytes, expected at most {MAX_BYTES:,}.")
    try:
        # Our Loader is a SafeLoader: it builds plain values only, never objects.
        return yaml.load(raw.decode("utf-8-sig"), Loader=_Loader)  # nosec B506
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise ParamsError(f"{path}: not UTF-8 text. Save it as UTF-8.") from None
    except RecursionError:
        raise ParamsError(f"{path}: nested too deeply. Two levels are enough.") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ParamsError(f"{path}{where}: not valid YAML: {problem}.") from None


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check every parameter. Raises ParamsError that lists all problems at once."""
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise ParamsError(f"{path}: expected sections with keys, found {_show(document)}.")
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]  # type: ignore[arg-type]
    if len(problems) == 1:
        raise ParamsError(f"{path}: {problems[0]}")
    listed = "\n".join(f"  - {problem}" for problem in problems)
    raise ParamsError(f"{path}: {len(problems)} problems:\n{listed}")


def flatten(value: BaseModel | dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested params → {"train.lr": 0.003, …}, in the order of the file."""
    items = value.model_dump(by_alias=True) if isinstance(value, BaseModel) else value
    flat: dict[str, Any] = {}
    for key, item in items.items():
        name = f"{prefix}{key}"
        flat.update(flatten(item, f"{name}.") if isinstance(item, dict) else {name: item})
    return flat


def _model_at(location: tuple[Any, ...]) -> type[BaseModel]:
    model: type[BaseModel] = Params
    for part in location:
        for name, field in model.model_fields.items():
            if part in (name, field.alias) and isinstance(field.annotation, type):
                if issubclass(field.annotation, BaseModel):
                    model = field.annotation
                break
    return model


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _show(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, str):
        return f"the text {value[:80]!r}" if value else "an empty text"
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'}"
    return f"{value!r}"


def _expected(annotation: Any, metadata: list[Any]) -> str:
    """The field's type and range in words: `a number above 0`."""
    if get_origin(annotation) is types.UnionType:
        options = [option for option in get_args(annotation) if option is not type(None)]
        return f"{_expected(options[0], metadata)} or null"
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(f"`{option}`" for option in get_args(annotation))
    kind = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(
        annotation, "a section with keys"
    )
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    limits = [
        f"{words[name]} {getattr(rule, name)}"
        for rule in metadata
        for name in words
        if getattr(rule, name, None) is not None
    ]
    return " ".join([kind, " and ".join(limits)]).strip()


def _nearest(key: str, model: type[BaseModel], prefix: str) -> str:
    close = difflib.get_close_matches(key, _keys(model), n=1, cutoff=0.5)
    if close:
        return f"did you mean `{prefix}{close[0]}`?"
    elsewhere = [name for name in flatten_names(Params) if name.split(".")[-1] == key]
    if elsewhere:
        return f"did you mean `{elsewhere[0]}`?"
    return "valid here: " + ", ".join(f"`{name}`" for name in _keys(model)) + "."


def flatten_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key that params.yaml may hold."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names += flatten_names(inner, f"{key}.")
        else:
            names.append(key)
    return names


def _explain(problem: dict[str, Any]) -> str:
    location = problem["loc"]
    name = ".".join(str(part) for part in location if part not in ("int", "float", "str"))
    kind, found = problem["type"], problem["input"]
    if not location:
        return str(problem["ctx"]["error"] if "ctx" in problem else problem["msg"])
    parent = _model_at(location[:-1])
    prefix = name.rpartition(".")[0]
    prefix = f"{prefix}." if prefix else ""
    if kind == "extra_forbidden":
        return f"unknown key `{name}`; {_nearest(str(location[-1]), parent, prefix)}"
    if kind == "missing":
        return f"`{name}` is missing. Add it, or restore params.yaml from git."
    if kind == "value_error":
        return f"`{name}`: {problem['ctx']['error']}."
    fields = {field.alias or key: field for key, field in parent.model_fields.items()}
    field = fields.get(str(location[-1])) or next(
        (fields[str(part)] for part in reversed(location) if str(part) in fields), None
    )
    if field is None:
        return f"`{name}`: {problem['msg']}, got {_show(found)}."
    text = f"`{name}` must be {_expected(field.annotation, field.metadata)}, got {_show(found)}."
    if isinstance(found, str) and _reads_as_number(found):
        text += _as_yaml_number(found.strip().lower(), whole=field.annotation is int)
    if name == "gate.model" and kind == "string_pattern_mismatch":
        text += " Expected letters, digits, `.`, `_` and `-`, such as `cgan`."
    elif kind == "string_pattern_mismatch":
        text += " Expected a competition such as `digit-recognizer`, or `owner/dataset`."
    return text


def _as_yaml_number(text: str, whole: bool) -> str:
    """What to write for a number that YAML 1.1 took for a text: `1e-4` and `1.0e4` are texts to it."""
    mantissa, e, exponent = text.partition("e")
    if not e:
        return f" Remove the quotes: write {text}."
    if whole and float(text).is_integer():
        return f" Write {float(text):.0f}."
    missing = [
        word
        for word, has in (("a dot", "." in mantissa), ("a sign", exponent[0] in "+-"))
        if not has
    ]
    why = f"YAML needs {' and '.join(missing)}" if missing else "Remove the quotes"
    mantissa += "" if "." in mantissa else ".0"
    return f" {why}: write {mantissa}e{'' if exponent[0] in '+-' else '+'}{exponent}."


def _reads_as_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
