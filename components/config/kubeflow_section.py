"""The config's section `kubeflow`: the resources and the environment of each component's container on a cluster.

Input: the section's keys.  Output: frozen dataclasses that reject contradictory values.
"""

import dataclasses
import fnmatch
import re

from tfx_ranking.components.config.refusals import STRICT, unless_selection
from tfx_ranking.components.errors import Refused, did_you_mean

COMPONENTS = (
    *("RankingExampleGen", "StatisticsGen", "RankingSchemaGen", "ImportSchemaGen", "ExampleValidator", "Transform"),
    *("RankingTrainer", "SignatureExporter", "LiveModel", "RankingEvaluator", "RankingPusher"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Container:
    """Resources of a component's container: Kubernetes' requests and limits, both with the same value."""

    __pydantic_config__ = STRICT
    cpu: float | None = None
    """Number of cores; the cluster decides when left out."""
    memory: float | None = None
    """Memory in GB; the cluster decides when left out."""
    gpu: int = 0
    """Number of GPUs."""
    gpu_type: str = "nvidia.com/gpu"
    """Kubernetes' name of the GPU resource."""
    retries: int = 0
    """How often a failed container is started again."""

    @unless_selection
    def __post_init__(self) -> None:
        for key in ("cpu", "memory"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise Refused(key, f"expected a number above 0; got {value}")
        for key in ("gpu", "retries"):
            if getattr(self, key) < 0:
                raise Refused(key, f"expected 0 or more; got {getattr(self, key)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kubeflow:
    """How a compiled pipeline runs on Kubeflow; local runs do not read it."""

    __pydantic_config__ = STRICT
    containers: dict[str, Container] = dataclasses.field(default_factory=dict)
    """Component name (RankingTrainer, …), or pattern with *, → its container. The first entry that matches counts."""
    beam_args: tuple[str, ...] = ()
    """Arguments for every Beam component, as in --direct_num_workers=2."""
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    """Environment variables of every container: name → value."""
    secrets: dict[str, str] = dataclasses.field(default_factory=dict)
    """Environment variables with values from Kubernetes' secrets: name → SECRET/KEY."""

    @unless_selection
    def __post_init__(self) -> None:
        for key, name in [*(("env", each) for each in self.env), *(("secrets", each) for each in self.secrets)]:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise Refused(f"{key}.{name}", "expected the name of an environment variable")
        for name, secret in self.secrets.items():
            if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[\w.-]+", secret):
                why = "expected SECRET/KEY, the secret's name of small letters, digits, '-' and '.'"
                raise Refused(f"secrets.{name}", f"{why}; got {secret!r}")
            if name in self.env:
                raise Refused(f"secrets.{name}", "the same variable is also under env")
        for name in self.containers:
            if not fnmatch.filter(COMPONENTS, name):
                hint = did_you_mean(name, COMPONENTS)
                raise Refused(f"containers.{name}", f"expected a component, or a pattern of some{hint}")

    def container(self, component: str) -> Container:
        """The container of a component: the first entry whose name or pattern matches.

        >>> Kubeflow(containers={"RankingTrainer": Container(cpu=8), "*": Container(retries=2)}).container("Transform")
        Container(cpu=None, memory=None, gpu=0, gpu_type='nvidia.com/gpu', retries=2)
        """
        fits = (each for name, each in self.containers.items() if fnmatch.fnmatchcase(component, name))
        return next(fits, Container())
