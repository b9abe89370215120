"""params.yaml → frozen models. Every check of a parameter is here, and all faults are told at once.

Only DVC overrides a value (`dvc exp run -S`): it rewrites params.yaml before a stage reads it.
"""

from __future__ import annotations

import datetime
import difflib
import math
import re
import types
from collections.abc import Hashable, Iterator
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
SHOWN = 20  # problems told at once

# Spellings of a number, truth value or nothing in which YAML 1.1, by which we read, and YAML 1.2, by
# which DVC reads, agree; and what looks like a number to the latter alone.
_ALIKE = re.compile(
    r"[-+]?(0|[1-9]\d*)|[-+]?\d+\.\d*([eE][-+]\d+)?|\.\d+([eE][-+]\d+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)|true|True|TRUE|false|False|FALSE|~|null|Null|NULL|"
    r"|\d{4}-\d\d-\d\d.*",
    re.ASCII,
)
_NUMBER_12 = re.compile(
    r"[-+]?(0o?[0-7_]+|0x[\da-fA-F_]+|\d[\d_]*\.?[\d_]*([eE][-+]?\d+)?|\.\d[\d_]*([eE][-+]?\d+)?)",
    re.ASCII,
)
_LINE_ENDS_11 = re.compile("[\x85\u2028\u2029]")


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{text[:80]!r} holds characters that cannot be shown. Remove them")
    return text


Line = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
"""A text without line ends and control characters."""


def _inside(name: str) -> str:
    parts = re.split(r"[\\/]", name)
    if not parts[0] or ".." in parts or ":" in parts[0]:
        raise ValueError(f"{name[:80]!r} leads outside. Give a relative name without `..`")
    return name


Inside = Annotated[Line, AfterValidator(_inside)]
"""A name or relative path that stays where it is looked up."""


class DataParams(Section):
    source: Literal["sample", "file", "kaggle"]
    path: Line
    kaggle: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
    member: Inside
    max_megabytes: int = Field(gt=0)


class ValidateParams(Section):
    label_column: Line
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
    generator: Literal["deconv", "upsample", "embed", "demo"]
    discriminator: Literal["projection", "demo"]
    latent_dim: int = Field(gt=0, le=4096)
    generator_width: int = Field(gt=0, le=1024)
    discriminator_width: int = Field(gt=0, le=1024)
    max_width: int = Field(gt=0, le=4096)
    objective: Literal["logistic", "least_squares"]
    auxiliary_discriminator: float = Field(ge=0)
    auxiliary_generator: float = Field(ge=0)
    class_logit_weight: float = Field(ge=0)
    r1_gamma: float = Field(ge=0)
    r1_every: int = Field(gt=0)
    updates: Literal["one_pass", "two_passes", "in_turn"]
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
        if self.discriminator == "demo" and self.updates != "in_turn":
            raise ValueError("`discriminator: demo` has batch norm and needs `updates: in_turn`")
        if self.discriminator == "demo" and (
            self.auxiliary_discriminator or self.auxiliary_generator or self.class_logit_weight
        ):
            raise ValueError(
                "`discriminator: demo` has no auxiliary classes: set `auxiliary_discriminator`, "
                "`auxiliary_generator` and `class_logit_weight` to 0.0"
            )
        if self.updates == "one_pass" and self.auxiliary_generator:
            raise ValueError(
                "`updates: one_pass` has no loss of the generator's own: set `auxiliary_generator` to "
                "0.0 and raise `class_logit_weight`, or choose `updates: two_passes`"
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
    on_drift: Literal["block", "note"]
    min_conditional_accuracy: float = Field(ge=0, le=1)
    min_worst_class_accuracy: float = Field(ge=0, le=1)
    max_fid_over_floor: float = Field(ge=0)
    min_coverage_of_floor: float = Field(ge=0, le=1)
    max_copies_over_floor: float = Field(ge=0, le=1)
    min_judge_accuracy: float = Field(ge=0, le=1)


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
    document, doubts = _parse(path)
    if doubts:
        raise ParamsError(_listed(path, list(doubts.values())))
    return document


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check every parameter. Raises ParamsError that lists all problems at once."""
    document, problems = _parse(path)
    if not isinstance(document, dict):
        raise ParamsError(
            f"{path}: expected sections with keys, found {_show(document)}. Restore it from git: "
            f"`git checkout {path}`."
        )
    try:
        params = Params.model_validate(document)
    except ValidationError as error:
        for problem in error.errors():
            name = _name(problem["loc"])
            if name not in problems or _is_exponential(problem["input"]):
                explain = len(problems) < SHOWN
                problems[name] = _explain(problem) if explain else ""  # type: ignore[arg-type]
    if problems:
        raise ParamsError(_listed(path, list(problems.values())))
    return params


def _listed(path: Path | str, problems: list[str]) -> str:
    if len(problems) == 1:
        return f"{path}: {problems[0]}"
    lines = "\n".join(f"  - {problem}" for problem in problems[:SHOWN])
    first = f", the first {SHOWN} of them" if len(problems) > SHOWN else ""
    return f"{path}: {len(problems):,} problems{first}:\n{lines}"


def _parse(path: Path | str) -> tuple[Any, dict[str, str]]:
    """The document, and what is wrong with the spelling of its values, by dotted name."""
    path = Path(path)
    raw = _read(path)
    try:
        text = raw.decode("utf-8-sig")
        if found := _LINE_ENDS_11.search(text):
            raise ParamsError(
                f"an invisible character U+{ord(found[0]):04X} in line "
                f"{text.count(chr(10), 0, found.start()) + 1} ends the line for some YAML readers and "
                "not for others. Remove it."
            )
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        return loader.construct_document(node), dict(_doubts(loader, node))
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise ParamsError(f"{path}: not UTF-8 text. Save it as UTF-8.") from None
    except RecursionError:
        raise ParamsError(f"{path}: nested too deeply. Two levels are enough.") from None
    # PyYAML's constructors let through what they stumble over.
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or (str(error).splitlines() or ["?"])[0]
        raise ParamsError(f"{path}{where}: not valid YAML: {problem}.") from None


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ParamsError(f"{path}: not a file. Restore it from git: `git checkout {path}`.")
        if size > MAX_BYTES:
            raise ParamsError(f"{path}: {size:,} bytes, expected at most {MAX_BYTES:,}.")
        return path.read_bytes()
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: not found in {Path.cwd()}. Run from the project's top folder."
        ) from None
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror}).") from None


def _doubts(loader: _Loader, top: yaml.Node) -> Iterator[tuple[str, str]]:
    """(dotted name, problem) of each value that YAML 1.1 and 1.2 read differently, or that has a tag."""
    seen: set[int] = set()

    def walk(node: yaml.Node, name: str) -> Iterator[tuple[str, str]]:
        if id(node) in seen:  # an alias, perhaps of what it stands in
            return
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                yield from walk(value, f"{name}.{key.value}".lstrip("."))
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                yield from walk(value, name)
        elif isinstance(node, yaml.ScalarNode) and (problem := _doubt(loader, node)):
            yield name, f"`{name}`: {problem}"

    yield from walk(top, "")


def _doubt(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = node.value
    plain = node.style is None
    resolved = loader.resolve(yaml.ScalarNode, text, (plain, not plain))  # type: ignore[no-untyped-call]
    if node.tag != resolved:
        return f"{text[:40]!r} has a YAML tag. Write the value plainly."
    if not plain or _ALIKE.fullmatch(text):
        return ""
    if node.tag.endswith(":str") and not _NUMBER_12.fullmatch(text):
        return ""
    return (
        f"YAML readers differ on what `{text[:40]}` means, DVC's and ours among them. Write a number "
        "in plain decimals (12, 0.5, 1.0e-4), a truth value as true or false, a text in quotes."
    )


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
    if isinstance(value, datetime.date):
        return f"the date {value}"
    return f"{str(value)[:80]}"


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


def _name(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location if part not in ("int", "float", "str"))


def _explain(problem: dict[str, Any]) -> str:
    location = problem["loc"]
    name = _name(location)
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
    if found == "seed" and name in ("train.generator", "train.discriminator"):
        text += " The demo's network is called `demo` now."
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


def _is_exponential(value: Any) -> bool:
    """A number with an exponent that YAML 1.1 took for a text; `_as_yaml_number` has the cure."""
    return isinstance(value, str) and "e" in value.lower() and _reads_as_number(value)


def _reads_as_number(text: str) -> bool:
    if not text.isascii():
        return False
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
