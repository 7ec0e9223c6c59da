"""The ranking config: what a list is and what to do with it, said once for every component.

Enters: `ranking.yaml`.  Leaves: frozen dataclasses that cannot hold a contradiction.  The one idea: the dataclasses
below, each key's sentence under it, are the documentation (`config_reference`), the JSON schema and the error messages.

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
import fnmatch
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pydantic
import yaml

from tfx_ranking.components import signatures
from tfx_ranking.components.config_data import Data
from tfx_ranking.components.config_errors import STRICT, Refused, being_cut, explain, near, unless_cut
from tfx_ranking.components.config_features import Feature, by_number
from tfx_ranking.components.config_kubeflow import Kubeflow
from tfx_ranking.components.config_names import Activation, Optimizer, check_dotted, check_metric, check_scorer
from tfx_ranking.components.config_selection import pick
from tfx_ranking.components.errors import ConfigError


def _checked(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a check of another module gives; its refusal, which names the key, as one of ours."""
    try:
        return check()
    except ConfigError as error:
        key, _, message = str(error).partition(": ")
        raise Refused(key.removeprefix("serving."), message.removesuffix(".")) from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transform:
    """Preprocessing: derived from the features, or the user's own function."""

    __pydantic_config__ = STRICT
    preprocessing_fn: str | None = None
    """Dotted path of your own `f(inputs, custom_config)`, in place of what the features say; derived from them when
    left out."""

    @unless_cut
    def __post_init__(self) -> None:
        if self.preprocessing_fn is not None:
            check_dotted("preprocessing_fn", self.preprocessing_fn)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """The scorer and its loss."""

    __pydantic_config__ = STRICT
    scorer: str = "dnn"
    """`linear`, `dnn`, or the dotted path of your own `f(inputs, model)`, which gives a Keras model."""
    hidden: tuple[int, ...] = (256, 128, 64)
    """Sizes of `dnn`'s dense layers, each 1 or more; [] makes it linear."""
    activation: Activation = "relu"
    """After each dense layer of `dnn`, by Keras' name."""
    dropout: float = 0.0
    """Fraction in [0, 1) of each dense layer's units that a training step leaves out."""
    normalisation: Literal["none", "batch", "layer"] = "none"
    """Of the inputs, and of each dense layer before its activation."""
    loss: Literal["softmax", "approx_ndcg", "pairwise_logistic", "sigmoid_cross_entropy", "mean_squared"] = "softmax"
    """softmax and approx_ndcg look at whole lists, pairwise_logistic at pairs, sigmoid_cross_entropy and mean_squared
    at each item."""

    @unless_cut
    def __post_init__(self) -> None:
        check_scorer("scorer", self.scorer)
        if not 0 <= self.dropout < 1:
            raise Refused("dropout", f"expected a fraction in [0, 1); got {self.dropout}")
        if any(size < 1 for size in self.hidden):
            raise Refused("hidden", f"expected layer sizes of at least 1; got {list(self.hidden)}")

    @property
    def own_scorer(self) -> str | None:
        """The dotted path of a function of the user's own; None for a scorer of ours."""
        return self.scorer if "." in self.scorer else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stop when the validation split's metric has not risen for `patience` epochs; the best weights stay."""

    __pydantic_config__ = STRICT
    metric: str = "ndcg@10"
    """Of the validation split: ndcg, mrr or map, with or without a cutoff as in ndcg@10, precision or recall with one;
    by the convention of `evaluation`."""
    patience: int = 5
    """Epochs without a better value after which training stops."""

    @unless_cut
    def __post_init__(self) -> None:
        check_metric("metric", self.metric)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PowerPropensity:
    """The position at rank k is looked at with probability k ** -power."""

    __pydantic_config__ = STRICT
    power: float
    """1.0 is 1 / rank; 0 corrects nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitializeFrom:
    """Layers that start from an exported model's weights, by their names in its `weights.npz`."""

    __pydantic_config__ = STRICT
    model: str
    """Local folder of an exported or pushed model, or of versions (the one that serves)."""
    layers: tuple[str, ...] = ()
    """Names of layers, or patterns with *, that start from its weights; every layer that both have when left out."""
    freeze: tuple[str, ...] = ()
    """Names of layers, or patterns with *, that training leaves as they are; none when left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How the scorer is trained."""

    __pydantic_config__ = STRICT
    epochs: int = 30
    """Passes over the training lists at most, 1 or more."""
    batch_lists: int = 64
    """Lists in a training step, 1 or more."""
    optimizer: Optimizer = "adam"
    """By Keras' name, with Keras' defaults but for the two keys below."""
    learning_rate: float = 0.001
    """The optimizer's, above 0."""
    clip_norm: float | None = None
    """Global norm that gradients are scaled down to; they stay as they are when left out."""
    early_stopping: EarlyStopping | None = EarlyStopping()
    """Stops when validation gets no better, on when left out; null trains all epochs and keeps the last
    weights."""
    propensity: PowerPropensity | tuple[float, ...] | None = None
    """Chance that a position is looked at, {power: p} or a list from position 1 on (the last holds beyond it): a
    clicked item (label above 0) weighs 1 / the chance; needs `data.position`; no correction when left out."""
    initialize_from: InitializeFrom | None = None
    """An exported model whose layers are the start; fresh weights when left out."""
    warm_start: bool = False
    """Whether to begin from the model that `push.base` serves: layers by name, embeddings by value, inputs by
    feature."""
    seed: int = 1
    """Of initial weights, dropout and shuffling: the same seed and data give the same model."""

    @unless_cut
    def __post_init__(self) -> None:
        for key in ("epochs", "batch_lists"):
            if getattr(self, key) < 1:
                raise Refused(key, f"expected at least 1; got {getattr(self, key)}")
        if self.learning_rate <= 0:
            raise Refused("learning_rate", f"expected a number above 0; got {self.learning_rate}")
        if isinstance(self.propensity, tuple) and not all(0 < p <= 1 for p in self.propensity):
            raise Refused(
                "propensity", f"expected probabilities in (0, 1], first position first; got {self.propensity}"
            )
        if self.warm_start and self.initialize_from:
            raise Refused("warm_start", "a ranker begins from one model: the live one, or initialize_from's")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serving:
    """The exported model's signatures; `list_example` is always among them."""

    __pydantic_config__ = STRICT
    signatures: tuple[str, ...] = ("predict", "list_example")
    """Chosen from predict, sequence_example, list_example, regress, features, rank, rank_list_example, probabilities
    and transform; list_example is always exported."""
    default: str = "predict"
    """Which of them `serving_default` is."""
    compatibility: tuple[Literal["tf_ranking", "ml4ir"], ...] = ()
    """Adds the signatures that clients of these systems call, with their names and padding."""
    postprocessing: str | None = None
    """Dotted path of your own `f(scores, features)`, which gives a dict of tensors: one more signature, by its name;
    none when left out."""
    top_k: int | None = None
    """Places that rank and rank_list_example answer with, 1 or more; the whole list when left out."""
    required_only: bool = False
    """Whether signatures read only the features that the scores depend on, so that requests may lack the others."""
    rename: dict[str, str] = dataclasses.field(default_factory=dict)
    """Feature to its name in requests (list_example's records keep training's names); the same name when left out."""
    tflite: bool = False
    """Whether the network is exported as a TFLite model beside the SavedModel; preprocessing is left to the caller."""
    parity_lists: int = 256
    """Lists of the test split that every signature must score as training does, or nothing is exported."""

    @unless_cut
    def __post_init__(self) -> None:
        if self.postprocessing is not None:
            check_dotted("postprocessing", self.postprocessing)
        names = list(_checked(lambda: signatures.chosen(self)))
        if self.default not in names:
            raise Refused("default", f"expected one of the signatures {names}; got {self.default!r}")
        if self.top_k is not None and self.top_k < 1:
            raise Refused("top_k", f"expected at least 1; got {self.top_k}")
        names = list(self.rename.values())
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise Refused("rename", f"expected a name of its own for each feature; {twice[0]!r} stands twice")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bless:
    """When a model may be pushed."""

    __pydantic_config__ = STRICT
    metric: str = "ndcg@10"
    """Which metric of the test split decides: ndcg, mrr or map, with or without a cutoff as in ndcg@10, precision or
    recall with one."""
    min_improvement: float = 0.0
    """Over the live model, in the metric's units, may be below 0; exactly this passes; without a live model it is not
    asked."""
    min_value: float | None = None
    """Lowest value of the metric that passes; not asked when left out."""
    allow_breaking: bool = False
    """Whether a model may pass whose signatures or features break the live model's clients."""
    previous_spans: int = 0
    """It must hold on the test lists of the last so many spans that the live model was blessed on, too: labels that
    went bad are bad in the new test split as well; 0 asks for none; needs splits by group id."""

    @unless_cut
    def __post_init__(self) -> None:
        check_metric("metric", self.metric)
        if self.previous_spans < 0:
            raise Refused("previous_spans", f"expected 0 (not asked) or more; got {self.previous_spans}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The metrics on the test split, and the convention they are computed by."""

    __pydantic_config__ = STRICT
    metrics: tuple[str, ...] = ("ndcg@5", "ndcg@10", "mrr")
    """To be reported on the test split: ndcg, mrr or map, with or without a cutoff as in ndcg@10, precision or recall
    with one."""
    slices: tuple[str, ...] = ()
    """Context features of one value a list, by whose values the metrics are reported as well."""
    relevant_from: float = 1.0
    """Lowest label that counts as relevant in mrr, map, precision and recall, and for `data.no_relevant` and
    `data.keep`."""
    gain: Literal["exponential", "linear"] = "exponential"
    """Of ndcg: exponential is `2**label - 1`, linear the label."""
    no_relevant: Literal["drop", "zero", "one"] = "drop"
    """What a list without a relevant item (ndcg: without a gain) counts as: left out, 0 or 1."""
    bless: Bless = Bless()
    """When the model may be pushed."""

    @unless_cut
    def __post_init__(self) -> None:
        for i, name in enumerate(self.metrics):
            check_metric(f"metrics[{i}]", name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Push:
    """Where TensorFlow Serving looks for versions."""

    __pydantic_config__ = STRICT
    base: str
    """Folder that TensorFlow Serving reads versions from, local or in an object store, as gs://bucket/shop."""
    version: Literal["unix_time", "next"] = "unix_time"
    """Number of a pushed version: `unix_time`, seconds since 1970, or `next`, the highest so far plus 1."""
    keep: int | None = None
    """Versions to keep, the newest, 1 or more; what is live or has a label stays besides; all when left out."""
    models_config: str | None = None
    """TensorFlow Serving's models.config in which version labels are kept, which needs `keep`; no labels when left
    out."""
    label: Literal["stable", "canary"] = "stable"
    """What a pushed version is labelled there; the one labelled stable is live."""

    @unless_cut
    def __post_init__(self) -> None:
        if self.keep is not None and self.keep < 1:
            raise Refused("keep", f"expected at least 1 version; got {self.keep}")
        if self.models_config is not None and self.keep is None:
            raise Refused(
                "keep", "with labels TensorFlow Serving loads every version that stands there: say how many may"
            )
        if self.label != "stable" and self.models_config is None:
            raise Refused("label", "labels are kept in a models.config: say in models_config where")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metadata:
    """The ML Metadata store: a sqlite file, or any connection as ML Metadata's ConnectionConfig in JSON."""

    __pydantic_config__ = STRICT
    sqlite: str | None = None
    """File of the store; metadata.sqlite beside the artifacts when neither is said."""
    connection: dict[str, Any] | None = None
    """ML Metadata's ConnectionConfig, as {mysql: {host: …, database: …}}; ${NAME} in it is an environment variable; in
    place of `sqlite`."""

    @unless_cut
    def __post_init__(self) -> None:
        if self.sqlite is not None and self.connection is not None:
            raise Refused("connection", "expected sqlite or connection; got both")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drift:
    """How far new data may have moved from those of the live model: TFDV's L-infinity distance of a string's values,
    its Jensen-Shannon divergence of numbers, both in [0, 1]."""

    __pydantic_config__ = STRICT
    label: float | None = None
    """Distance in [0, 1] that the label may move; not asked when left out."""
    features: dict[str, float] = dataclasses.field(default_factory=dict)
    """Feature, or pattern with *, to the distance in [0, 1] that it may move; the first that fits counts; what none
    fits is not asked."""

    @unless_cut
    def __post_init__(self) -> None:
        asked = {f"features.{name}": value for name, value in self.features.items()}
        for key, value in {"label": self.label, **asked}.items():
            if value is not None and not 0 <= value <= 1:
                raise Refused(key, f"expected a distance in [0, 1]; got {value}")

    def threshold(self, name: str) -> float | None:
        """A feature's; None for one that nothing is asked of.

        >>> Drift(features={"price": 0.1, "*": 0.3}).threshold("brand")
        0.3
        """
        return next((value for key, value in self.features.items() if fnmatch.fnmatchcase(name, key)), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrain:
    """When `tfx-ranking retrain` trains: new data, and one of these reasons where any is given."""

    __pydantic_config__ = STRICT
    min_lists: int | None = None
    """So many new labelled lists are a reason to train, 1 or more."""
    max_age: float | None = None
    """More days than this since the live model was made are a reason to train, above 0."""
    drift: Drift | None = None
    """What moved farther than this is a reason to train."""
    refuse: Drift | None = None
    """Data that moved farther than this are not trained on; none are refused when left out."""

    @unless_cut
    def __post_init__(self) -> None:
        if self.min_lists is not None and self.min_lists < 1:
            raise Refused("min_lists", f"expected at least 1; got {self.min_lists}")
        if self.max_age is not None and self.max_age <= 0:
            raise Refused("max_age", f"expected days, above 0; got {self.max_age}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankingConfig:
    """Everything in `ranking.yaml`."""

    __pydantic_config__ = STRICT
    name: str
    """The pipeline's, and the model's in a models.config: letters, digits, '.', '_' and '-', beginning with a letter
    or digit."""
    data: Data
    """Where the logs are and what their columns mean."""
    items: dict[str, Feature]
    """Item features, one or more: column name to feature; in LETOR feature n is `f<n>`; "f[1-136]" stands for f1 to
    f136."""
    context: dict[str, Feature] = dataclasses.field(default_factory=dict)
    """Features of the query, one value a list: column name to feature; none when left out."""
    transform: Transform = Transform()
    """Preprocessing."""
    model: Model = Model()
    """The scorer and its loss."""
    training: Training = Training()
    """How the scorer is trained."""
    serving: Serving = Serving()
    """What is exported."""
    evaluation: Evaluation = Evaluation()
    """What is measured, and what may be pushed."""
    push: Push | None = None
    """Where a blessed model goes; nothing is pushed when left out."""
    retrain: Retrain = Retrain()
    """When `tfx-ranking retrain` trains; any new data are a reason when left out."""
    metadata: Metadata = Metadata()
    """Where runs and artifacts are recorded."""
    kubeflow: Kubeflow = dataclasses.field(default_factory=Kubeflow)
    """How a compiled pipeline runs; local runs do not read it."""

    def __post_init__(self) -> None:
        self._check()
        for level in ("context", "items"):
            # In one order, however they came: the columns of the scorer's matrix follow it, and TFX sorts what
            # Transform is called with.
            features = getattr(self, level)
            object.__setattr__(self, level, {name: features[name] for name in sorted(features, key=by_number)})

    @unless_cut
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
                    raise Refused(f"{section}.{column}", f"data.{role} is no scoring input; take it out of {section}")
        for name in self.items:
            if name in self.context:
                raise Refused(f"items.{name}", "the same name stands under context; a feature belongs to one of them")
        for name, feature in self.context.items():
            if "query_normalise" in feature.transform:
                raise Refused(f"context.{name}.transform", "query_normalise compares the items of a list; use z_score")
        if self.data.window and self.data.window.since and self.push is None:
            raise Refused("data.window.since", "the live model is what push.base serves: say where that is")
        if self.evaluation.bless.previous_spans and self.data.splits.by not in ("group_id", self.data.group_id):
            why = "splits by time would train on lists that the live model was tested on; use data.splits.by: group_id"
            raise Refused("evaluation.bless.previous_spans", why)
        if self.training.warm_start and self.push is None:
            raise Refused("training.warm_start", "the live model is what push.base serves: say where that is")
        if self.training.propensity is not None and self.data.position is None:
            raise Refused("training.propensity", "propensities are by position: name the column in data.position")
        for name in self.serving.rename:
            if name not in self.features:
                hint = near(name, list(self.features))
                raise Refused(f"serving.rename.{name}", f"expected a feature{hint}")
        requested = [self.serving.rename.get(name, name) for name in self.features]
        for name in self.serving.rename.values():
            if requested.count(name) > 1:
                raise Refused("serving.rename", f"two features would be called {name!r} in requests")
        if self.list_wise:
            rows = signatures.chosen(self.serving)
            _checked(lambda: signatures.refuse_item_by_item(rows, self.list_wise))
        for key in ("drift", "refuse"):
            asked = getattr(self.retrain, key)
            for name in asked.features if asked else ():
                if not fnmatch.filter(self.features, name):
                    hint = near(name, list(self.features))
                    raise Refused(f"retrain.{key}.features.{name}", f"expected a feature, or a pattern of some{hint}")
        for i, name in enumerate(self.evaluation.slices):
            if name not in self.context:
                hint = near(name, list(self.context))
                raise Refused(f"evaluation.slices[{i}]", f"expected a context feature; got {name!r}{hint}")

    @property
    def features(self) -> dict[str, Feature]:
        """Context features, then item features."""
        return {**self.context, **self.items}

    @property
    def list_wise(self) -> str:
        """Why an item cannot be scored without its list, as far as the config tells; "" when it can."""
        names = [name for name, feature in self.items.items() if "query_normalise" in feature.transform]
        return f"items.{names[0]}.transform has query_normalise, which compares the items of a list" if names else ""

    def select(self, *keys: str) -> str:
        """Only the named parts, for a component that depends on no others, as JSON.

        keys: paths with `*` for any name, e.g. "items.*.transform"; a section's name stands for all of it, and
        "items.*.tokens.present" for the fact that there is such a part.
        Keys without a default are always there.  `from_selection` gives the config back, unnamed keys at their default.
        """
        # One text without a backslash: TFX (1.16, 1.21) takes no nested dict as a parameter, and ML Metadata (1.16)
        # cannot write a text with a backslash to PostgreSQL, which JSON within JSON is full of.
        return json.dumps(pick(self, keys), ensure_ascii=False)


def load(path: str | pathlib.Path) -> RankingConfig:
    """The config in a YAML file; relative paths in it are taken from the file's folder.

    Raises ConfigError with the file, the key's path, what was expected and what came.
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
    """The config in plain Python values, paths as they stand.  Raises ConfigError."""
    if not isinstance(raw, dict):
        raise ConfigError(f"expected a mapping with name, data and items; got {type(raw).__name__}")
    try:
        return _adapter.validate_json(json.dumps(raw, default=_plain), strict=True)
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, RankingConfig)) from None


def from_selection(selection: str | Mapping[str, Any]) -> RankingConfig:
    """The config of what `RankingConfig.select` chose, as text or unpacked; keys left out have their defaults."""
    token = being_cut.set(True)
    try:
        return parse(json.loads(selection) if isinstance(selection, str) else dict(selection))
    finally:
        being_cut.reset(token)


_adapter = pydantic.TypeAdapter(RankingConfig)


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a key which stands twice: PyYAML would keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _plain(value: Any) -> str:
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a ranking config")


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
                raise Refused(f"{section}.{name}", f"{each} was named before")
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
