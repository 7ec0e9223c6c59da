"""The sorted lists: refused scores, labels and row splits.  `test_measures` has the ties."""

import numpy as np
import pytest

from tfx_ranking.components.errors import DataError
from tfx_ranking.components.metrics import ranking_metrics


def test_refused_data():
    with pytest.raises(DataError, match="list 1: a score is NaN"):
        ranking_metrics.per_list(["mrr"], [1.0, np.nan], [0, 1], [0, 1, 2])
    with pytest.raises(DataError, match="list 0: a label is NaN"):
        ranking_metrics.per_list(["mrr"], [1.0, 2.0], [np.nan, 1], [0, 1, 2])
    for splits in ([0, 1], [1, 2], [0, 3], [0, 2, 1, 2], []):
        with pytest.raises(DataError, match="row_splits from 0 to it"):
            ranking_metrics.per_list(["mrr"], [1.0, 2.0], [0, 1], splits)
