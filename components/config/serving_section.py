"""The config's section `serving`: the signatures of the exported model.

Input: the section's keys.  Output: a frozen dataclass that rejects contradictory values.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from tfx_ranking.components.choices.signatures import Signature, refuse_item_by_item, rows_to_export
from tfx_ranking.components.config import own_code
from tfx_ranking.components.config.choice_fields import SignatureName
from tfx_ranking.components.config.feature_sections import Feature
from tfx_ranking.components.config.refusals import STRICT, unless_selection
from tfx_ranking.components.errors import Refused, did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serving:
    """The exported model's signatures; `list_example` is always among them."""

    __pydantic_config__ = STRICT
    signatures: tuple[SignatureName, ...] = ("predict", "list_example")
    """Signatures to export, besides list_example, which is always exported."""
    default: str = "predict"
    """The exported signature that `serving_default` is a copy of."""
    compatibility: tuple[Literal["tf_ranking", "ml4ir"], ...] = ()
    """Also exports the signatures that clients of these systems call, with the names and the padding of those
    systems."""
    postprocessing: str | None = None
    """Dotted path of your own `f(scores, features)`, which returns a dict of tensors; it becomes one more signature,
    with the function's name. None when left out."""
    top_k: int | None = None
    """Number of items, 1 or more, that rank and rank_list_example return at most; the whole list when left out."""
    required_only: bool = False
    """`true`: signatures read only the features that the scores depend on, so requests can leave out the others."""
    rename: dict[str, str] = dataclasses.field(default_factory=dict)
    """Feature name → its name in requests (list_example keeps the names of training); the same name when left out."""
    tflite: bool = False
    """`true`: also exports the network as a TFLite model, next to the SavedModel; it takes preprocessed inputs."""
    parity_lists: int = 256
    """Number of lists of the test split that every signature must score as training does; else nothing is exported."""

    @unless_selection
    def __post_init__(self) -> None:
        if self.postprocessing is not None:
            own_code.check_form("postprocessing", self.postprocessing)
        names = list(self.rows)
        if self.default not in names:
            raise Refused("default", f"expected one of the signatures {names}; got {self.default!r}")
        if self.top_k is not None and self.top_k < 1:
            raise Refused("top_k", f"expected at least 1; got {self.top_k}")
        names = list(self.rename.values())
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise Refused("rename", f"expected a different name for each feature; {twice[0]!r} is there twice")

    def check_with(self, features: Mapping[str, Feature], list_wise: str) -> None:
        """Raises Refused when a key of this section does not fit the config's features.

        list_wise: why an item cannot be scored without its list; "" when it can.
        """
        for name in self.rename:
            if name not in features:
                raise Refused(f"rename.{name}", f"expected a feature{did_you_mean(name, features)}")
        requested = [self.rename.get(name, name) for name in features]
        for name in self.rename.values():
            if requested.count(name) > 1:
                raise Refused("rename", f"two features would be called {name!r} in requests")
        if list_wise:
            refuse_item_by_item(self.rows, list_wise)

    @property
    def rows(self) -> dict[str, Signature]:
        """The signatures to export, by name.  Raises Refused."""
        return rows_to_export(self.signatures, self.compatibility, self.postprocessing)
