"""Each table of choices takes a row from outside of the package, and the row works as those of the package do."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from tfx_ranking.components.choices import formats, losses, metrics, scorers, transform_steps
from tfx_ranking.components.choices.formats import FORMATS, Format
from tfx_ranking.components.choices.functions import load_function
from tfx_ranking.components.choices.losses import LOSSES, Loss
from tfx_ranking.components.choices.metrics import METRICS, Metric
from tfx_ranking.components.choices.scorers import SCORERS, Scorer
from tfx_ranking.components.choices.transform_steps import TRANSFORM_STEPS, Parameter, TransformStep
from tfx_ranking.components.config import from_selection, parse, reference
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.formats import chunks
from tfx_ranking.components.lists.list_examples import columns

TABLES = {
    "losses": LOSSES,
    "metrics": METRICS,
    "scorers": SCORERS,
    "transform_steps": TRANSFORM_STEPS,
    "formats": FORMATS,
}
MODULE = """
import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfx_ranking.components.formats import chunks
from tfx_ranking.components.scorers.networks import linear


def hinge(scores, labels, *, mask, weights=None):
    losses = tf.nn.relu(1.0 - tf.convert_to_tensor(scores) * labels)
    return tf.reduce_sum(tf.where(mask, losses, 0.0))


def hits(ranking, k, convention):
    return ranking.sum(ranking.tie_relevant / ranking.tie_size, k)


def build(inputs, model):
    return linear(inputs, model)


def power(x, exponent, row_splits):
    return x**exponent


def read(request):
    with chunks.open_file(request.path) as file:
        rows = [line.split(b"|") for line in file]
    names = ("group_id", "price", "label")
    values = {name: pa.array([row[i].strip() for row in rows]) for i, name in enumerate(names)}
    yield chunks.Chunk(values, np.arange(1, len(rows) + 1), len(rows))
"""


@pytest.fixture
def shop_module(tmp_path, monkeypatch):
    (tmp_path / "shop_choices.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "shop_choices"


def config(**sections):
    data = {"input": "x", "format": "csv", **sections.pop("data", {})}
    return parse({"name": "shop", "data": data, "items": {"price": {}}, **sections})


def schema_and_page():
    return json.dumps(reference.json_schema()), reference.page()


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_the_function_of_every_row_can_be_imported(table):
    for name, row in table.items():
        assert callable(row.load()), name


def test_the_tables_and_the_config_load_no_tensorflow():
    modules = [module.__name__ for module in (formats, losses, metrics, scorers, transform_steps)]
    code = f"import sys, {', '.join(modules)}, tfx_ranking.components.config.reference as reference\n"
    code += "reference.page()\nprint(sorted({'tensorflow', 'keras', 'tfx', 'apache_beam', 'numpy'} & {*sys.modules}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_function_that_cannot_be_imported_is_explained(shop_module):
    with pytest.raises(ConfigError, match=r"the loss: 'no_such_module.f' cannot be imported .*PYTHONPATH"):
        Loss(sentence="None.", compares="item", function="no_such_module.f").load()
    with pytest.raises(ConfigError, match=r"the scorer: 'shop_choices\.gone' cannot be imported .*no attribute 'gone'"):
        load_function("shop_choices.gone", "the scorer")


def test_a_loss_from_outside(shop_module, monkeypatch):
    with pytest.raises(ConfigError, match=r"model\.loss: expected one of softmax, .*; got 'hinge'"):
        config(model={"loss": "hinge"})
    row = Loss(sentence="Hinge loss of each item.", compares="item", function=f"{shop_module}.hinge")
    monkeypatch.setitem(LOSSES, "hinge", row)
    loss = LOSSES[config(model={"loss": "hinge"}).model.loss].load()
    expected = (1 - 0.25 * 1) + (1 - 0.5 * 0)  # the third item is padding
    assert float(loss([[0.25, 0.5, 9.0]], [[1.0, 0.0, 0.0]], mask=[[True, True, False]])) == expected
    assert all("Hinge loss of each item." in text for text in schema_and_page())


def test_a_metric_from_outside(shop_module, monkeypatch):
    from tfx_ranking.components.metrics import ranking_metrics
    from tfx_ranking.components.metrics.convention import Convention

    with pytest.raises(ConfigError, match=r"evaluation\.metrics\[0\]: expected one of ndcg, .*; got 'hits@1'"):
        config(evaluation={"metrics": ["hits@1"]})
    row = Metric(
        sentence="Number of relevant items among the first k.",
        function=f"{shop_module}.hits",
        cutoff="required",
        depends_on=("relevant_from", "ties"),
    )
    monkeypatch.setitem(METRICS, "hits", row)
    [name] = config(evaluation={"metrics": ["hits@1"]}).evaluation.metrics
    values = ranking_metrics.per_list([name], scores=[0.9, 0.1, 0.2, 0.8], labels=[1, 1, 1, 0], row_splits=[0, 2, 4])
    np.testing.assert_array_equal(values[name], [1, 0])  # the first list's best item is relevant, the second's is not
    assert ranking_metrics.describe(name, Convention()) == "hits@1(relevant_from=1, ties=averaged)"
    with pytest.raises(ConfigError, match="expected a cutoff, as in hits@10; got 'hits'"):
        config(evaluation={"bless": {"metric": "hits"}})
    assert all("Number of relevant items among the first k." in text for text in schema_and_page())


def test_a_scorer_from_outside(shop_module, monkeypatch):
    from tfx_ranking.components.scorers import networks
    from tfx_ranking.components.scorers.inputs import Input

    with pytest.raises(ConfigError, match=r"model\.scorer: expected one of linear, dnn, .*; got 'tower'"):
        config(model={"scorer": "tower"})
    monkeypatch.setitem(SCORERS, "tower", Scorer(sentence="One tower.", function=f"{shop_module}.build"))
    built = networks.build([Input("items/numeric", "numeric", 2)], config(model={"scorer": "tower"}).model)
    scores = built({"items/numeric": np.ones((3, 2), np.float32), "row_lengths": np.array([2, 1])})
    assert scores.shape == (3,)
    assert all("One tower." in text for text in schema_and_page())


def test_a_transform_step_from_outside(shop_module, monkeypatch):
    import tensorflow as tf

    from tfx_ranking.components import preprocessing

    items = {"price": {"transform": [{"power": 2.0}, "sign_log1p"]}}
    with pytest.raises(
        ConfigError, match=r"items\.price\.transform\[0\]: expected one of z_score, .*; got {'power': 2.0}"
    ):
        config(items=items)
    row = TransformStep(
        sentence="The value to the power of p.",
        function=f"{shop_module}.power",
        parameter=Parameter(shown="p", type=float, refuse=lambda p: "" if p > 0 else "expected a power above 0"),
    )
    monkeypatch.setitem(TRANSFORM_STEPS, "power", row)
    with pytest.raises(ConfigError, match=r"items\.price\.transform\[0\]\.power: expected a power above 0; got -1.0"):
        config(items={"price": {"transform": [{"power": -1.0}]}})
    selection = config(items=items).select(*preprocessing.READS)
    assert json.loads(selection)["items"]["price"]["transform"] == [{"power": 2.0}, "sign_log1p"]
    assert from_selection(selection).items == config(items=items).items
    outputs = preprocessing.preprocessing_fn({"price": tf.ragged.constant([[3.0], [2.0, 0.0]])}, {"config": selection})
    np.testing.assert_allclose(outputs["items/numeric"].flat_values[:, 0], np.log1p([9, 4, 0]), rtol=1e-6)
    assert all("The value to the power of p." in text for text in schema_and_page())


def test_an_input_format_from_outside(shop_module, monkeypatch, tmp_path):
    from tfx_ranking.components.ingestion import workers
    from tfx_ranking.pipelines.asking import unlabelled

    with pytest.raises(ConfigError, match=r"data\.format: expected one of letor, .*; got 'pipes'"):
        config(data={"format": "pipes"})
    row = Format(sentence="Text between pipes.", function=f"{shop_module}.read", lists=False, endings=(".pipes",))
    monkeypatch.setitem(FORMATS, "pipes", row)
    file = tmp_path / "a.pipes"
    file.write_text("q1|3.5|1\nq1|2|0\n")
    taken = config(data={"format": "pipes"})
    request = chunks.FileRequest(str(file), "a", taken.data, columns(taken))
    [chunk] = workers.checked(request)
    assert chunk.columns["price"].to_pylist() == [3.5, 2.0]
    assert chunk.columns["group_id"].cast(pa.string()).to_pylist() == ["q1", "q1"]
    assert unlabelled.guess(str(file), "csv") == "pipes"
    with pytest.raises(ConfigError, match=r"data\.group_from: .*got format pipes"):
        config(data={"format": "pipes", "group_from": "record"})
    assert all("Text between pipes." in text for text in schema_and_page())
