"""The way back: which version it leads to, what is remembered of it, and what is not pushed again."""

import pytest
import servable_models

from tfx_ranking.components.errors import PushError, PushRefused
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import ledger
from tfx_ranking.components.push import versions as serving_versions
from tfx_ranking.components.push.pushing import Terms, push, roll_back

NEXT = Terms("next")


def untried(model):
    return ""


@pytest.fixture
def base(tmp_path):
    """Versions 1, 2 and 3 of three models."""
    for i in range(3):
        push(servable_models.save(tmp_path / f"model{i}", 0.5 + i), tmp_path / "serving", NEXT, check=untried)
    return tmp_path / "serving"


def seen(base):
    versions = serving_versions.ServingBase(base).directories()
    return {version: model_files.digest(path) for version, path in versions.items()}


def test_a_rollback_publishes_the_old_bytes_under_a_higher_version(base):
    before = seen(base)
    done = roll_back(base, terms=NEXT, check=untried)
    assert (done.version, done.rollback_of, done.restores) == (4, 3, 2)
    assert seen(base) == {**before, 4: before[2]}
    assert serving_versions.ServingBase(base).live_version() == 4
    entry = ledger.read(base).entry(4)
    assert (entry.rollback_of, entry.restores, entry.digest) == (3, 2, before[2])
    assert ledger.read(base).entry(3).rolled_back_at


def test_a_second_rollback_goes_further_back_and_a_third_finds_nothing(base):
    before = seen(base)
    roll_back(base, terms=NEXT, check=untried)
    done = roll_back(base, terms=NEXT, check=untried)
    assert (done.version, done.rollback_of, done.restores) == (5, 4, 1)
    assert seen(base)[5] == before[1]
    with pytest.raises(
        PushError,
        match=r"no version to go back to: every version below the live one \(5\).*1, 2, 3, 4, 5\).*--to",
    ):
        roll_back(base, terms=NEXT, check=untried)
    assert list(seen(base)) == [1, 2, 3, 4, 5]


def test_a_rollback_goes_to_the_version_that_to_names_even_a_later_one(base):
    before = seen(base)
    assert roll_back(base, 1, NEXT, check=untried).version == 4
    done = roll_back(base, 3, NEXT, check=untried)
    assert (done.version, done.rollback_of, done.restores) == (5, 4, 3)
    assert seen(base)[5] == before[3]
    assert ledger.read(base).rolled_back(before[3]) is None  # it serves again because a user requested it
    assert ledger.read(base).rolled_back(before[1]).version == 4


def test_a_rollback_to_what_serves_changes_nothing(base):
    assert roll_back(base, 3, NEXT, check=untried).unchanged
    roll_back(base, terms=NEXT, check=untried)
    assert roll_back(base, 2, NEXT, check=untried).unchanged  # version 4 has its bytes
    assert list(seen(base)) == [1, 2, 3, 4]


def test_a_version_that_is_not_there_or_broken_is_no_target(base):
    (base / "2" / "saved_model.pb").unlink()
    for version in (2, 9):
        with pytest.raises(PushError, match=rf"/{version}: no version that can be loaded; there are 1, 3"):
            roll_back(base, version, NEXT, check=untried)
    assert roll_back(base, terms=NEXT, check=untried).restores == 1


def test_bytes_that_changed_since_they_were_pushed_are_no_way_back(base):
    (base / "2" / "saved_model.pb").write_bytes(b"edited")
    with pytest.raises(PushError, match="/2: its files have changed since it was pushed"):
        roll_back(base, terms=NEXT, check=untried)
    assert list(seen(base)) == [1, 2, 3]


def test_nothing_serves(tmp_path):
    with pytest.raises(PushError, match="nothing serves there, so nothing can be rolled back"):
        roll_back(tmp_path / "serving", check=untried)
    assert not (tmp_path / "serving").exists()


def test_what_was_rolled_back_is_pushed_again_only_by_force(base, tmp_path):
    roll_back(base, terms=NEXT, check=untried)
    with pytest.raises(PushRefused, match=r"these bytes were rolled back \(version 3, 20.*--force") as refused:
        push(tmp_path / "model2", base, NEXT, check=untried)
    assert refused.value.kind == "rolled back"
    assert list(seen(base)) == [1, 2, 3, 4]
    assert push(tmp_path / "model2", base, Terms("next", force=True), check=untried).version == 5
    assert push(tmp_path / "model1", base, NEXT, check=untried).version == 6  # was not the one that was rolled back
    assert push(tmp_path / "model2", base, NEXT, check=untried).version == 7  # nor is it any more


def test_a_rollback_that_does_not_load_is_none(base):
    before = seen(base)

    def broken(model):
        raise PushRefused("it cannot be loaded")

    with pytest.raises(PushRefused, match="cannot be loaded"):
        roll_back(base, terms=NEXT, check=broken)
    assert seen(base) == before
    assert ledger.read(base).entry(3).rolled_back_at == ""


def test_breaking_clients_needs_force(base, tmp_path):
    servable_models.promise(tmp_path / "model0", "price", "brand")
    push(tmp_path / "model0", base, NEXT, check=untried)
    fewer = servable_models.promise(servable_models.save(tmp_path / "fewer", 9.0), "price")
    with pytest.raises(PushRefused, match=r"contract breaking \(-1 feature\) with the clients of version 4") as refused:
        push(fewer, base, NEXT, check=untried)
    assert refused.value.kind == "contract"
    assert push(fewer, base, Terms("next", force=True), check=untried).version == 5
