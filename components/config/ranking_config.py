"""Loads and checks `ranking.yaml`, the one config of all components.

Input: the file, or its values as a dict.  Output: a `RankingConfig`, which rejects contradictory values.  The sections'
dataclasses, with a sentence under each key, are also the source of the docs, the JSON schema (`reference`) and the
error messages (`refusals`).

>>> config = parse({"name": "shop", "data": {"input": "logs/*.csv", "format": "csv"}, "items": {"f[1-3]": {}}})
>>> list(config.items)
['f1', 'f2', 'f3']
>>> parse({"name": "shop", "data": {"input": "x", "format": "csv", "lable": "y"}, "items": {"f1": {}}})
Traceback (most recent call last):
...
tfx_ranking.components.errors.ConfigError: data.lable: unknown key; did you mean 'label'?
"""

import dataclasses
import datetime
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic
import yaml

from tfx_ranking.components.config.data_section import Data
from tfx_ranking.components.config.evaluation_section import Evaluation
from tfx_ranking.components.config.feature_sections import Feature, by_number
from tfx_ranking.components.config.kubeflow_section import Kubeflow
from tfx_ranking.components.config.push_sections import Push, Retrain
from tfx_ranking.components.config.refusals import STRICT, below, explain, reading_selection, unless_selection
from tfx_ranking.components.config.selection import pick
from tfx_ranking.components.config.serving_section import Serving
from tfx_ranking.components.config.training_sections import Model, Training, Transform
from tfx_ranking.components.errors import ConfigError, Refused


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metadata:
    """The ML Metadata store: a sqlite file, or any database that ML Metadata supports."""

    __pydantic_config__ = STRICT
    sqlite: str | None = None
    """The store's file; metadata.sqlite next to the artifacts when both keys are left out."""
    connection: dict[str, Any] | None = None
    """ML Metadata's ConnectionConfig, as in {mysql: {host: …, database: …}}, instead of `sqlite`. ${NAME} stands for an
    environment variable."""

    @unless_selection
    def __post_init__(self) -> None:
        if self.sqlite is not None and self.connection is not None:
            raise Refused("connection", "expected sqlite or connection; got both")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankingConfig:
    """Everything in `ranking.yaml`."""

    __pydantic_config__ = STRICT
    name: str
    """Name of the pipeline, and of the model in a models.config: letters, digits, '.', '_' and '-'; the first is a
    letter or digit."""
    data: Data
    """Where the logs are and what their columns mean."""
    items: dict[str, Feature]
    """Item features, one or more: column name → feature. In LETOR, feature n is called `f<n>`; "f[1-136]" stands for f1
    to f136."""
    context: dict[str, Feature] = dataclasses.field(default_factory=dict)
    """Features of the query, with one value a list: column name → feature."""
    transform: Transform = dataclasses.field(default_factory=Transform)
    """How features are preprocessed."""
    model: Model = dataclasses.field(default_factory=Model)
    """The scorer and its loss."""
    training: Training = dataclasses.field(default_factory=Training)
    """How the scorer is trained."""
    serving: Serving = dataclasses.field(default_factory=Serving)
    """The exported model's signatures."""
    evaluation: Evaluation = dataclasses.field(default_factory=Evaluation)
    """What is measured, and when a model may be pushed."""
    push: Push | None = None
    """Where a blessed model goes; nothing is pushed when left out."""
    retrain: Retrain = dataclasses.field(default_factory=Retrain)
    """When `tfx-ranking retrain` trains; on any new data when left out."""
    metadata: Metadata = Metadata()
    """Where runs and artifacts are recorded."""
    kubeflow: Kubeflow = dataclasses.field(default_factory=Kubeflow)
    """How a compiled pipeline runs; local runs do not read it."""

    def __post_init__(self) -> None:
        self._check()
        for level in ("context", "items"):
            # Always in the same order, since the columns of the scorer's matrix follow it, and TFX sorts the
            # parameters of Transform.
            features = getattr(self, level)
            object.__setattr__(self, level, {name: features[name] for name in sorted(features, key=by_number)})

    @unless_selection
    def _check(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise Refused("name", f"expected letters, digits, '.', '_' and '-'; got {self.name!r}")
        object.__setattr__(self, "context", _expand(self.context, "context"))
        object.__setattr__(self, "items", _expand(self.items, "items"))
        if not self.items:
            raise Refused("items", "expected at least one item feature")
        for section in ("context", "items"):
            for role, column in self.data.columns.items():
                if column in getattr(self, section):
                    raise Refused(
                        f"{section}.{column}", f"data.{role} cannot be an input of the scorer; take it out of {section}"
                    )
        for name in self.items:
            if name in self.context:
                raise Refused(f"items.{name}", "the name is also under context; a feature belongs to one of them")
        for name, feature in self.context.items():
            if step := feature.compares_items:
                raise Refused(f"context.{name}.transform", f"{step} compares the items of a list; use z_score")
        with below("data"):
            self.data.check_with(self.push)
        with below("training"):
            self.training.check_with(self.data, self.push)
        with below("serving"):
            self.serving.check_with(self.features, self.list_wise)
        with below("evaluation"):
            self.evaluation.check_with(self.data, self.context)
        with below("retrain"):
            self.retrain.check_with(self.features)

    @property
    def features(self) -> dict[str, Feature]:
        """Context features, then item features."""
        return {**self.context, **self.items}

    @property
    def list_wise(self) -> str:
        """Why an item cannot be scored without its list, as far as the config shows; "" when it can."""
        for name, feature in self.items.items():
            if step := feature.compares_items:
                return f"items.{name}.transform has {step}, which compares the items of a list"
        return ""

    @property
    def own_code(self) -> dict[str, str]:
        """The user's own functions: key → dotted path, only those that are set.

        >>> data = {"input": "x", "format": "csv"}
        >>> parse({"name": "a", "data": data, "items": {"f": {}}, "model": {"scorer": "shop.build"}}).own_code
        {'model.scorer': 'shop.build'}
        """
        paths = {
            "transform.preprocessing_fn": self.transform.preprocessing_fn,
            "model.scorer": self.model.own_scorer,
            "serving.postprocessing": self.serving.postprocessing,
        }
        return {key: path for key, path in paths.items() if path is not None}

    def select(self, *keys: str) -> str:
        """The values of some keys as JSON, for a component that depends on no others.

        keys: paths with `*` for any name, e.g. "items.*.transform"; a section's name selects all of it, and
        "items.*.tokens.present" selects only whether the part exists.
        Keys without a default are always included.  `from_selection` makes a config of it again, in which all other
        keys have their defaults.
        """
        # A text, since TFX (1.16, 1.21) takes no nested dict as a parameter; and one without backslashes, of which JSON
        # within JSON is full, since ML Metadata (1.16) cannot write them to PostgreSQL.
        return json.dumps(pick(self, keys), ensure_ascii=False)


def load(path: str | pathlib.Path) -> RankingConfig:
    """The config in a YAML file; relative paths in it start at the file's folder.

    Raises ConfigError with the file, the key's path, what was expected and the value in the file.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name the ranking.yaml to use.") from error
    try:
        raw = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    try:
        return _absolute(parse(raw), path.absolute().parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse(raw: Any) -> RankingConfig:
    """The config of plain Python values; relative paths are not changed.  Raises ConfigError."""
    if not isinstance(raw, dict):
        raise ConfigError(f"expected a mapping with name, data and items; got {type(raw).__name__}")
    try:
        return _adapter.validate_json(json.dumps(raw, default=_plain), strict=True)
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, RankingConfig)) from None


def from_selection(selection: str | Mapping[str, Any]) -> RankingConfig:
    """The config of a selection that `RankingConfig.select` made, as JSON or a dict; other keys have their defaults."""
    token = reading_selection.set(True)
    try:
        return parse(json.loads(selection) if isinstance(selection, str) else dict(selection))
    finally:
        reading_selection.reset(token)


_adapter = pydantic.TypeAdapter(RankingConfig)


class _UniqueKeys(yaml.SafeLoader):
    """YAML without repeated keys: PyYAML itself would use the last one without a warning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _plain(value: Any) -> str:
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not allowed in a ranking config")


def _expand(features: dict[str, Feature], section: str) -> dict[str, Feature]:
    expanded: dict[str, Feature] = {}
    for name, feature in features.items():
        span = re.fullmatch(r"(.*)\[(\d+)-(\d+)\](.*)", name)
        names = [name]
        if span:
            first, last = int(span[2]), int(span[3])
            if first > last:
                raise Refused(f"{section}.{name}", f"expected [first-last] with first ≤ last; got [{first}-{last}]")
            names = [f"{span[1]}{i}{span[4]}" for i in range(first, last + 1)]
        for each in names:
            if each in expanded:
                raise Refused(f"{section}.{name}", f"{each} is there twice")
            expanded[each] = feature
    return expanded


_PATHS = (
    *(("data", "input"), ("data", "schema"), ("push", "base"), ("metadata", "sqlite")),
    ("push", "models_config"),
    ("training", "initialize_from", "model"),
)


def _absolute(config: RankingConfig, folder: pathlib.Path) -> RankingConfig:
    def resolve(value: Any) -> Any:
        if isinstance(value, str):
            return value if "://" in value else str(folder / value)
        if isinstance(value, tuple):
            return tuple(resolve(each) for each in value)
        if isinstance(value, dict):
            return {split: resolve(each) for split, each in value.items()}
        return value

    def replaced(part: Any, path: Sequence[str]) -> Any:
        if not path:
            return resolve(part)
        inner = getattr(part, path[0])
        return part if inner is None else dataclasses.replace(part, **{path[0]: replaced(inner, path[1:])})

    for path in _PATHS:
        config = replaced(config, path)
    return config
