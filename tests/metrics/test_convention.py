"""The convention's text and its refused values."""

import dataclasses

import pytest

from tfx_ranking.components.choices.metrics import METRICS
from tfx_ranking.components.config.evaluation_section import Evaluation
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.metrics.convention import Convention


def test_a_convention_prints_its_choices():
    assert "short_lists=items" in str(Convention(short_lists="items"))
    for name, row in METRICS.items():
        assert set(row.depends_on) <= {field.name for field in dataclasses.fields(Convention)}, name


def test_the_convention_of_a_config():
    evaluation = Evaluation(gain="linear", no_relevant="zero", relevant_from=2.0)
    assert Convention.of(evaluation) == Convention(gain="linear", no_relevant="zero", relevant_from=2.0)


def test_a_refused_choice():
    with pytest.raises(ConfigError, match=r"Convention\.gain: expected one of .*got 'expo'"):
        Convention(gain="expo")
