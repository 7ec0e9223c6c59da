"""What a destination remembers: numbers are used once, old versions are deleted, never what serves."""

import json
import shutil

import pytest
import servable_models

from tfx_ranking.components.errors import PushError
from tfx_ranking.components.push import ledger as push_ledger
from tfx_ranking.components.push import version_files
from tfx_ranking.components.push import versions as serving_versions
from tfx_ranking.components.push.ledger import Entry, Ledger
from tfx_ranking.components.push.pushing import Terms, push, roll_back


def untried(model):
    return ""


@pytest.fixture
def models(tmp_path):
    return [servable_models.save(tmp_path / f"model{i}", 0.5 + i, pipeline="shop", run=f"run{i}") for i in range(5)]


def versions(base):
    return list(serving_versions.ServingBase(base).directories())


def test_a_ledger_reads_as_it_was_written(tmp_path):
    ledger = Ledger(models_config="serving/models.config", model="shop").having(Entry(7, "ab", run="r", rollback_of=5))
    push_ledger.write(tmp_path, ledger)
    assert push_ledger.read(tmp_path) == ledger
    assert ledger.highest == 7
    assert ledger.having(Entry(3)).highest == 7
    assert [each.version for each in ledger.having(Entry(3)).entries] == [3, 7]
    assert push_ledger.read(tmp_path / "nowhere") == Ledger()


def test_a_ledger_that_cannot_be_read_says_what_to_do(tmp_path):
    (tmp_path / push_ledger.LEDGER).write_text("{")
    with pytest.raises(PushError, match=r"\.push\.json: not the ledger of pushed versions.*delete it"):
        push_ledger.read(tmp_path)


def test_numbers_go_on_after_versions_were_removed(models, tmp_path):
    base = tmp_path / "serving"
    for model in models[:3]:
        push(model, base, Terms("next"), check=untried)
    shutil.rmtree(base / "3")
    shutil.rmtree(base / "2")
    assert push(models[3], base, Terms("next"), check=untried).version == 4
    shutil.rmtree(base)  # and the ledger with it: who knows better says so
    assert push(models[0], base, Terms("next", above=4), check=untried).version == 5


def test_a_clock_that_goes_backwards_gives_no_lower_number(models, tmp_path):
    base = tmp_path / "serving"
    future = 4_000_000_000
    assert push(models[0], base, Terms(above=future), check=untried).version == future + 1
    shutil.rmtree(base / str(future + 1))
    assert push(models[1], base, check=untried).version == future + 2


def test_the_run_that_made_a_model_is_remembered(models, tmp_path):
    push(models[1], tmp_path / "serving", Terms("next"), check=untried, about=Entry(0, metric="ndcg@10 0.6"))
    entry = push_ledger.read(tmp_path / "serving").entry(1)
    assert (entry.pipeline, entry.run, entry.metric) == ("shop", "run1", "ndcg@10 0.6")
    stored = json.loads((tmp_path / "serving" / push_ledger.LEDGER).read_text())
    assert set(stored["versions"][0]) == {"version", "digest", "pushed_at", "pipeline", "run", "metric"}


def test_the_newest_versions_are_kept(models, tmp_path):
    base = tmp_path / "serving"
    for model in models:
        done = push(model, base, Terms("next", keep=2), check=untried)
    assert versions(base) == [4, 5]
    assert done.pruned == (3,)
    ledger = push_ledger.read(base)
    assert [each.version for each in ledger.entries if each.pruned_at] == [1, 2, 3]
    assert push(models[0], base, Terms("next", keep=2), check=untried).version == 6


def test_what_serves_and_what_cannot_be_counted_on_do_not_count(models, tmp_path):
    base = tmp_path / "serving"
    for model in models[:3]:
        push(model, base, Terms("next"), check=untried)
    (base / "2" / "saved_model.pb").unlink()  # broken: not one of the two that are kept, and old
    (base / "90").mkdir()  # not of a push: somebody may be copying files to there
    assert push(models[3], base, Terms("next", keep=2), check=untried).pruned == (1, 2)
    assert versions(base) == [3, 90, 91]


def test_a_rollback_keeps_as_many(models, tmp_path):
    base = tmp_path / "serving"
    for model in models[:3]:
        push(model, base, Terms("next"), check=untried)
    assert roll_back(base, 1, Terms("next", keep=2), check=untried).pruned == (1, 2)
    assert versions(base) == [3, 4]


def test_old_versions_that_cannot_be_deleted_do_not_undo_the_push(models, tmp_path, monkeypatch):
    base = tmp_path / "serving"
    push(models[0], base, Terms("next"), check=untried)

    def fail(version):
        raise PermissionError(13, "Permission denied", str(version))

    with monkeypatch.context() as broken:
        broken.setattr(version_files, "withdraw", fail)
        done = push(models[1], base, Terms("next", keep=1), check=untried)
    assert done.version == 2
    assert "old versions could not be deleted" in done.problem
    assert versions(base) == [1, 2]
    assert push(models[2], base, Terms("next", keep=1), check=untried).version == 3
    assert versions(base) == [3]


@pytest.mark.parametrize("bad", [0, -1])
def test_fewer_than_one_cannot_be_kept(bad):
    from tfx_ranking.components import config as ranking_config
    from tfx_ranking.components.errors import ConfigError

    raw = {"name": "a", "data": {"input": "x", "format": "csv"}, "items": {"f": {}}, "push": {"base": "b", "keep": bad}}
    with pytest.raises(ConfigError, match=r"push\.keep: expected at least 1 version"):
        ranking_config.parse(raw)


def test_a_live_version_that_somebody_deleted_is_pushed_again_under_a_new_number(models, tmp_path):
    base = tmp_path / "serving"
    for model in models[:2]:
        push(model, base, Terms("next"), check=untried)
    shutil.rmtree(base / "2")
    assert serving_versions.ServingBase(base).live_version() == 1
    assert push(models[1], base, Terms("next"), check=untried).version == 3
    assert roll_back(base, terms=Terms("next"), check=untried).restores == 1
