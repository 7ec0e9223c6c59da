"""The simulator: its bias is the one it says, its bytes are the seed's, its lists are whole."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import sklearn.datasets

from tfx_ranking.pipelines import search_logs
from tfx_ranking.pipelines.search_logs import Simulation, appeal, examination, numeric_lists, simulate

SMALL = Simulation(queries=300, days=3, products=400)


@pytest.fixture(scope="module")
def log() -> pa.Table:
    return simulate(Simulation(queries=20_000, days=2, power=1.0, noise=0.05))


def column(log: pa.Table, name: str) -> np.ndarray:
    return log[name].to_numpy()


def test_a_seed_is_its_bytes(tmp_path):
    first, second = (search_logs.write_csv(SMALL, tmp_path / name) for name in ("a", "b"))
    assert [file.name for file in first] == ["2026-11-01.csv", "2026-11-02.csv", "2026-11-03.csv"]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    other = search_logs.write_csv(Simulation(queries=300, days=3, products=400, seed=2), tmp_path / "c")
    assert first[0].read_bytes() != other[0].read_bytes()


def test_the_csv_files_hold_the_log(tmp_path):
    files = search_logs.write_csv(SMALL, tmp_path)
    read = pa.concat_tables([pyarrow.csv.read_csv(str(file)) for file in files])
    log = simulate(SMALL)
    assert read.column_names == log.column_names
    for name in ("query_id", "title", "country"):
        assert read[name].to_pylist() == log[name].to_pylist()
    for name in ("price", "rating", "position", "clicked", "relevance"):
        np.testing.assert_array_equal(read[name].to_pandas(), log[name].to_pandas())


@pytest.mark.parametrize("position", [1, 2, 3, 5, 8])
def test_clicks_fall_with_position_as_examination_does(log, position):
    # P(click | position k, grade g) = P(looked at | k) · P(click | looked at, g) = k ** -1 · appeal(g), so clicks over
    # the sum of appeals at position k estimate 1/k.
    here = column(log, "position") == position
    clicks = column(log, "clicked")[here].sum()
    appeals = appeal(column(log, "relevance")[here], noise=0.05).sum()
    deviation = np.sqrt(clicks) / appeals  # of a count of rare events
    assert abs(clicks / appeals - 1 / position) < 4 * deviation


@pytest.mark.parametrize("grade", range(5))
def test_clicks_rise_with_relevance_as_appeal_does(log, grade):
    here = column(log, "relevance") == grade
    clicks = column(log, "clicked")[here].sum()
    looks = examination(column(log, "position")[here], power=1.0).sum()
    expected = 0.05 + 0.95 * (2**grade - 1) / 15
    assert abs(clicks / looks - expected) < 4 * np.sqrt(clicks) / looks


def test_without_bias_position_does_not_matter():
    log = simulate(Simulation(queries=5_000, days=1, power=0.0))
    last = column(log, "position") >= 8
    appeals = appeal(column(log, "relevance")[last], noise=0.05).sum()
    clicks = column(log, "clicked")[last].sum()
    assert abs(clicks / appeals - 1) < 4 * np.sqrt(clicks) / appeals


def test_grades_are_of_a_useful_mix(log):
    shares = np.bincount(column(log, "relevance"), minlength=5) / log.num_rows
    assert 0.3 < shares[0] < 0.7
    assert shares[4] > 0.02
    assert np.all(shares > 0)


def test_the_production_ranker_is_mediocre(log):
    # Better than chance, as its first half is more relevant than its second, and far from the truth.
    relevance, position = column(log, "relevance"), column(log, "position")
    top, bottom = relevance[position <= 5].mean(), relevance[position > 5].mean()
    assert bottom < top < 2 * bottom


def test_lists_are_whole():
    log = simulate(SMALL)
    query = column(log, "query_id")
    _, first, lengths = np.unique(query, return_index=True, return_counts=True)
    assert len(lengths) == 300
    assert lengths.max() <= SMALL.max_items
    assert lengths.mean() > SMALL.min_items - 1
    for start, length in zip(first, lengths):  # a query's rows stand together, by position, no item twice
        assert column(log, "position")[start : start + length].tolist() == list(range(1, length + 1))
        assert len(set(column(log, "sku")[start : start + length])) == length
        for name in ("query_text", "query_category", "country", "time"):
            assert len(set(column(log, name)[start : start + length])) == 1


def test_unrated_products_are_null_and_have_the_configured_share(log):
    assert abs(log["rating"].null_count / log.num_rows - 0.1) < 0.03
    everything = simulate(Simulation(queries=50, days=1, missing_rating=0.0))
    assert everything["rating"].null_count == 0


def test_queries_are_shared_out_over_the_days():
    days = [(day, len(set(table["query_id"].to_pylist()))) for day, table in search_logs.simulate_days(SMALL)]
    assert days == [("2026-11-01", 100), ("2026-11-02", 100), ("2026-11-03", 100)]
    few = dict(search_logs.simulate_days(Simulation(queries=1, days=2)))  # a day without a search has no rows
    assert sorted(len(table) > 0 for table in few.values()) == [False, True]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"queries": 0}, "Simulation.queries: expected at least 1; got 0"),
        ({"min_items": 9, "max_items": 8}, r"Simulation.max_items: expected at least min_items \(9\); got 8"),
        ({"noise": 1.5}, r"Simulation.noise: expected a fraction in \[0, 1\]; got 1.5"),
        ({"power": -1.0}, r"Simulation.power: expected 0 \(no bias\) or more; got -1.0"),
        ({"first_day": "1 November"}, "1 November"),
    ],
)
def test_a_bad_simulation_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Simulation(**wrong)


@pytest.mark.parametrize("n_items", [0, 1, 4, 5, 1000])
def test_numeric_lists_have_the_requested_sizes(n_items):
    lists = numeric_lists(n_items, 7, seed=3, min_list=5, max_list=9)
    assert lists.features.shape == (n_items, 7)
    assert lists.features.dtype == np.float32
    assert lists.labels.shape == (n_items,)
    lengths = np.diff(lists.row_splits)
    assert lengths.sum() == n_items
    assert np.all((lengths[:-1] >= 5) & (lengths[:-1] <= 9))
    assert np.all(lengths[-1:] >= 1)
    np.testing.assert_array_equal(lists.features, numeric_lists(n_items, 7, 3, 5, 9).features)
    with pytest.raises(ValueError, match="expected n_items ≥ 0, n_features ≥ 1"):
        numeric_lists(n_items, 0)


def test_letor_text_reads_back_bit_by_bit(tmp_path):
    lists = numeric_lists(500, 6, seed=2)
    search_logs.write_letor(lists, tmp_path / "lists.txt", chunk=128)
    features, labels, groups = sklearn.datasets.load_svmlight_file(
        str(tmp_path / "lists.txt"), n_features=6, dtype=np.float32, query_id=True, zero_based=False
    )
    np.testing.assert_array_equal(features.toarray(), lists.features)
    np.testing.assert_array_equal(labels, lists.labels)
    np.testing.assert_array_equal(groups, lists.group_ids)


def test_numeric_tables_have_a_column_a_feature():
    table = search_logs.numeric_table(numeric_lists(20, 3))
    assert table.column_names == ["group_id", "label", "f1", "f2", "f3"]
    assert table.num_rows == 20


def test_the_simulator_needs_no_tensorflow():
    code = "import sys, tfx_ranking.pipelines.search_logs; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
