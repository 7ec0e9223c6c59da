"""What RankingPusher records of a push, and which models it does not push."""

import os
import shutil

import pytest
import servable_models

from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import ledger, versions
from tfx_ranking.components.push.pushing import Terms, push, roll_back
from tfx_ranking.components.serving import samples, serving_process


@pytest.fixture(scope="module")
def pusher():
    from tfx_ranking.components import pusher

    return pusher


def ask_here(model, calls):
    """Asked in this process, which has loaded TensorFlow; otherwise as the component does."""
    return serving_process.answer(model, calls)


@pytest.fixture(autouse=True)
def resident_loader(monkeypatch):
    check = samples.check
    monkeypatch.setattr(samples, "check", lambda model: check(model, ask_here))


@pytest.fixture
def models(tmp_path):
    return [servable_models.save(tmp_path / f"model{i}", 0.5 + i, pipeline="shop", run=f"run{i}") for i in range(3)]


def seen(base):
    return {version: model_files.digest(path) for version, path in versions.ServingBase(base).directories().items()}


CONFIG = {
    "name": "shop",
    "data": {"input": "x", "format": "csv"},
    "items": {"f1": {}},
    "push": {"base": "x", "version": "next"},
}


def run(pusher, source, base, blessed=None, highest=""):
    from tfx.types.standard_artifacts import Model, ModelBlessing, PushedModel

    model, pushed_model, blessing = Model(), PushedModel(), ModelBlessing()
    model.uri = str(base.parent / f"artifact-{source.name}")
    if not os.path.exists(model.uri):
        shutil.copytree(source, os.path.join(model.uri, "Format-Serving"))
    if blessed is not None:
        blessing.uri = str(base.parent / "blessing")
        blessing.set_int_custom_property("blessed", blessed)
        blessing.set_string_custom_property("reason", "its ndcg@10 is lower")
        blessing.set_string_custom_property("summary", "ndcg@10 0.6021 (first model): blessed")
    inputs = {"model": model} if blessed is None else {"model": model, "model_blessing": blessing}
    destination = {**versions.ServingBase(base).state(), "asked": "2024-01-01", "highest": highest}
    pusher.RankingPusher.test_call(**inputs, config=CONFIG, destination=destination, pushed_model=pushed_model)
    return pushed_model


def test_pusher_records_what_tfx_records(models, tmp_path, pusher):
    base = tmp_path / "serving"
    pushed = run(pusher, models[0], base, blessed=1)
    assert pushed.get_int_custom_property("pushed") == 1
    assert pushed.get_string_custom_property("pushed_version") == "1"
    assert pushed.get_string_custom_property("pushed_destination") == str(base / "1")
    assert pushed.get_string_custom_property("digest") == model_files.digest(base / "1")
    assert pushed.get_int_custom_property("unchanged") == 0
    again = run(pusher, models[0], base, blessed=1)
    assert again.get_int_custom_property("pushed") == again.get_int_custom_property("unchanged") == 1
    assert again.get_string_custom_property("summary") == "nothing changed, version 1 serves"
    assert run(pusher, models[1], base).get_string_custom_property("reason") == "pushed without a blessing"


def test_a_model_that_is_not_blessed_is_not_pushed_and_the_reason_is_recorded(models, tmp_path, pusher):
    base = tmp_path / "serving"
    refused = run(pusher, models[0], base, blessed=0)
    assert refused.get_int_custom_property("pushed") == 0
    assert refused.get_string_custom_property("summary") == "not pushed, nothing serves: its ndcg@10 is lower"
    assert seen(base) == {}
    run(pusher, models[1], base, blessed=1)
    refused = run(pusher, models[0], base, blessed=0)
    assert refused.get_string_custom_property("summary") == "not pushed, version 1 still serves: its ndcg@10 is lower"
    assert seen(base) == {1: model_files.digest(models[1])}


def test_a_kill_between_the_rename_and_the_record(models, tmp_path, pusher):
    """A killed run's version is recognised by its digest and recorded, even if a later evaluation refuses it."""
    base = tmp_path / "serving"
    push(models[0], base, Terms("next"), check=samples.check)  # and no artifact records it
    for blessed in (1, 0):
        pushed_model = run(pusher, models[0], base, blessed=blessed)
        assert pushed_model.get_int_custom_property("pushed") == pushed_model.get_int_custom_property("unchanged") == 1
        assert pushed_model.get_string_custom_property("pushed_version") == "1"
    assert list(seen(base)) == [1]


def test_the_ledger_remembers_run_blessing_and_metric(models, tmp_path, pusher):
    base = tmp_path / "serving"
    pushed = run(pusher, models[0], base, blessed=1)
    entry = ledger.read(base).entry(1)
    assert (entry.pipeline, entry.run, entry.blessing, entry.metric) == ("shop", "run0", "blessed", "ndcg@10 0.6021")
    assert entry.digest == pushed.get_string_custom_property("digest")
    checked = "loaded, and 1 sample request answered as at export"
    assert pushed.get_string_custom_property("checked") == checked


def test_a_model_that_answers_its_samples_otherwise_is_not_pushed(tmp_path, pusher):
    base = tmp_path / "serving"
    wrong = servable_models.save(tmp_path / "wrong", 0.5, answer=1.5)
    refused = run(pusher, wrong, base, blessed=1)
    assert refused.get_int_custom_property("pushed") == 0
    assert refused.get_string_custom_property("refused") == "samples"
    assert refused.get_string_custom_property("summary") == (
        "not pushed, nothing serves: signature predict no longer answers its sample as it did at export: "
        "scores[0] is 1.0, it was 1.5"
    )
    assert seen(base) == {}


def test_a_model_that_does_not_load_is_not_pushed(models, tmp_path, pusher, monkeypatch):
    base = tmp_path / "serving"
    run(pusher, models[0], base, blessed=1)
    monkeypatch.undo()  # asked in a process of its own
    broken = tmp_path / "broken"
    shutil.copytree(models[1], broken)
    graph = (broken / "saved_model.pb").read_bytes()
    (broken / "saved_model.pb").write_bytes(graph.replace(b"Placeholder", b"Placemolder"))  # no such op
    refused = run(pusher, broken, base, blessed=1)
    assert refused.get_int_custom_property("pushed") == 0
    summary = refused.get_string_custom_property("summary")
    assert summary.startswith(
        "not pushed, version 1 still serves: it cannot be loaded and called as TensorFlow Serving"
    )
    assert "Op type not registered 'Placemolder'" in summary
    assert "\n" not in summary
    assert list(seen(base)) == [1]


def test_what_was_rolled_back_is_not_pushed_again_by_itself(models, tmp_path, pusher):
    base = tmp_path / "serving"
    run(pusher, models[0], base, blessed=1)
    run(pusher, models[1], base, blessed=1)
    roll_back(base, terms=Terms("next"), check=samples.check)
    again = run(pusher, models[1], base, blessed=1)
    assert again.get_int_custom_property("pushed") == 0
    assert again.get_string_custom_property("refused") == "rolled back"
    summary = again.get_string_custom_property("summary")
    assert summary.startswith("not pushed, version 3 still serves: these bytes were rolled back (version 2, 20")
    assert f"`tfx-ranking push MODEL {base} --force` pushes them anyway" in summary
    assert run(pusher, models[0], base, blessed=1).get_string_custom_property("summary") == (
        "nothing changed, version 3 serves"
    )
    assert run(pusher, models[2], base, blessed=1).get_string_custom_property("pushed_version") == "4"


def test_without_a_blessing_the_contract_is_compared_here(models, tmp_path, pusher):
    base = tmp_path / "serving"
    servable_models.promise(models[0], "price", "brand")
    servable_models.promise(models[1], "price")
    run(pusher, models[0], base)
    refused = run(pusher, models[1], base)
    assert refused.get_string_custom_property("refused") == "contract"
    assert refused.get_string_custom_property("reason") == (
        "contract breaking (-1 feature) with the clients of version 1: feature brand is not read any more"
    )
    assert run(pusher, models[1], base, blessed=1).get_int_custom_property("pushed") == 1  # judged by the config's rule


def test_a_destination_that_lost_its_ledger_goes_on_above_what_ml_metadata_knows(models, tmp_path, pusher):
    base = tmp_path / "serving"
    pushed = run(pusher, models[0], base, blessed=1, highest="7")
    assert pushed.get_string_custom_property("pushed_version") == "8"
