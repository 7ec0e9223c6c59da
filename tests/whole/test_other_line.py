"""A model exported on one line of TFX loads and scores on the other.

`make test-current` runs this on both lines with one folder: each hands over a model with every signature's call and its
answers, then each asks the other's model.
"""

import os
import pathlib
import pickle
import shutil
import sys

import numpy as np
import pytest
import serving_client

FOLDER = os.environ.get("TFX_RANKING_OTHER_LINE", "")
HERE = f"python{sys.version_info.major}.{sys.version_info.minor}"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.current,
    pytest.mark.skipif(not FOLDER, reason="needs both lines of TFX: `make test-current`"),
]


def test_a_model_for_the_other_line(shop):
    from small_rankers import SHOP

    from tfx_ranking.components.serving import client_requests

    mine = pathlib.Path(FOLDER, HERE)
    shutil.rmtree(mine, ignore_errors=True)
    shutil.copytree(shop.served, mine / "model")
    records = shop.sample.list_examples
    calls = [(name, client_requests.feed(row, records, SHOP)) for name, row in SHOP.serving.rows.items()]
    (mine / "calls.pickle").write_bytes(pickle.dumps((calls, serving_client.cpp(mine / "model", calls))))


@pytest.mark.parametrize("client", serving_client.CLIENTS)
def test_the_other_lines_model_scores_equally_here(client):
    others = [each for each in pathlib.Path(FOLDER).iterdir() if each.is_dir() and each.name != HERE]
    if not others and os.environ.get("TFX_RANKING_OTHER_LINE_FIRST"):
        pytest.skip("this line comes first; it is asked again at the end")
    [other] = others
    calls, expected = pickle.loads((other / "calls.pickle").read_bytes())
    for (name, _), outputs, theirs in zip(calls, serving_client.CLIENTS[client](other / "model", calls), expected):
        assert not isinstance(outputs, serving_client.ClientError), (name, outputs)
        assert set(outputs) == set(theirs)
        for output, value in outputs.items():
            if value.dtype == object:
                assert value.tolist() == theirs[output].tolist(), (name, output)
            else:
                np.testing.assert_allclose(value, theirs[output], rtol=1e-5, atol=1e-5, err_msg=f"{name} {output}")
