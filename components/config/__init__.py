"""Defines and checks the keys of `ranking.yaml`, without TensorFlow; `ranking_config` joins the sections' modules."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfx_ranking.components.config.ranking_config import RankingConfig, from_selection, load, parse

__all__ = ["RankingConfig", "from_selection", "load", "parse"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tfx_ranking.components.config import ranking_config

    return getattr(ranking_config, name)
