"""Reading the files of artifacts."""

import numpy as np

from tfx_ranking.pipelines.lineage import files as lineage_files


def test_shares_are_interpolated_within_a_bucket():
    histogram = lineage_files.Histogram((0.0, 2.0), (2.0, 2.0), (3.0, 1.0))  # three numbers in 0 to 2, one is 2
    below = histogram.below(np.array([-1.0, 1.0, 2.0]))
    assert below.tolist() == [0.0, 1.5 / 4, 1.0]
