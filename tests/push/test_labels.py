"""Version labels in models.config: who has one serves, and a rollback moves it."""

import shutil

import pytest
import servable_models
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tfx_ranking.components.errors import PushError, PushRefused
from tfx_ranking.components.push import labels, versions
from tfx_ranking.components.push.labels import Labels
from tfx_ranking.components.push.pushing import Terms, push, roll_back


def untried(model):
    return ""


@pytest.fixture
def models(tmp_path):
    return [servable_models.save(tmp_path / f"model{i}", 0.5 + i) for i in range(4)]


@pytest.fixture
def kept(tmp_path):
    return Labels(str(tmp_path / "models.config"), "shop")


def parsed(kept):
    config = model_server_config_pb2.ModelServerConfig()
    with open(kept.file) as file:
        text_format.Parse(file.read(), config)
    return {each.name: each for each in config.model_config_list.config}


def test_a_push_makes_the_file_and_moves_stable(models, tmp_path, kept):
    base = tmp_path / "serving"
    done = push(models[0], base, Terms("next", labels=kept), check=untried)
    assert (done.version, done.label) == (1, "stable")
    shop = parsed(kept)["shop"]
    assert (shop.base_path, shop.model_platform) == (str(base), "tensorflow")
    assert dict(shop.version_labels) == {"stable": 1}
    # Loaded as it appears, label or not: a label moves to what is loaded and to nothing else.
    assert shop.model_version_policy.WhichOneof("policy_choice") == "all"
    push(models[1], base, Terms("next", labels=kept), check=untried)
    assert dict(parsed(kept)["shop"].version_labels) == {"stable": 2}


def test_live_is_the_one_labelled_stable(models, tmp_path, kept):
    base = tmp_path / "serving"
    push(models[0], base, Terms("next", labels=kept), check=untried)
    canary = push(models[1], base, Terms("next", labels=kept, label="canary"), check=untried)
    assert (canary.version, canary.label) == (2, "canary")
    assert versions.ServingBase(base).labels() == {"stable": 1, "canary": 2}
    assert versions.ServingBase(base).live_version() == 1
    assert versions.ServingBase(base).state()["version"] == "1"
    assert versions.model_directory(base) == base / "1"
    assert push(models[1], base, Terms("next", labels=kept, label="canary"), check=untried).unchanged


def test_a_canary_becomes_stable_without_a_second_copy(models, tmp_path, kept):
    base = tmp_path / "serving"
    push(models[0], base, Terms("next", labels=kept), check=untried)
    push(models[1], base, Terms("next", labels=kept, label="canary"), check=untried)
    done = push(base / "2", base, check=untried)  # the base knows where its labels are kept
    assert (done.version, done.label, done.unchanged) == (2, "stable", False)
    assert list(versions.ServingBase(base).directories()) == [1, 2]
    assert versions.ServingBase(base).live_version() == 2


def test_a_rollback_moves_the_label(models, tmp_path, kept):
    base = tmp_path / "serving"
    for model in models[:3]:
        push(model, base, Terms("next", labels=kept), check=untried)
    done = roll_back(base, check=untried)
    assert (done.version, done.label, done.rollback_of, done.restores) == (2, "stable", 3, 2)
    assert list(versions.ServingBase(base).directories()) == [1, 2, 3]
    assert versions.ServingBase(base).live_version() == 2
    with pytest.raises(PushRefused, match=r"rolled back \(version 3"):
        push(models[2], base, Terms("next", labels=kept), check=untried)
    assert roll_back(base, check=untried).version == 1
    assert roll_back(base, 3, check=untried).version == 3
    assert push(models[2], base, Terms("next", labels=kept), check=untried).unchanged


def test_what_has_a_label_is_not_pruned(models, tmp_path, kept):
    base = tmp_path / "serving"
    push(models[0], base, Terms("next", labels=kept), check=untried)
    for model in models[1:]:
        push(model, base, Terms("next", keep=1, labels=kept, label="canary"), check=untried)
    # 1 is stable, 4 the canary, and 3 was it until now: it is asked until the server has read the file.
    assert list(versions.ServingBase(base).directories()) == [1, 3, 4]


def test_a_labelled_version_that_is_gone_serves_nobody(models, tmp_path, kept):
    base = tmp_path / "serving"
    for model in models[:2]:
        push(model, base, Terms("next", labels=kept), check=untried)
    shutil.rmtree(base / "2")
    assert versions.ServingBase(base).live_version() is None
    assert push(models[2], base, Terms("next", labels=kept), check=untried).version == 3
    assert versions.ServingBase(base).live_version() == 3


def test_labels_of_versions_that_are_gone_go_with_the_next_move(models, tmp_path, kept):
    base = tmp_path / "serving"
    push(models[0], base, Terms("next", labels=kept), check=untried)
    push(models[1], base, Terms("next", labels=kept, label="canary"), check=untried)
    shutil.rmtree(base / "1")
    shutil.rmtree(base / "2")
    push(models[2], base, Terms("next", labels=kept), check=untried)
    assert labels.read(kept) == {"stable": 3}


def test_without_the_file_no_labels_are_kept_any_more(models, tmp_path, kept):
    base = tmp_path / "serving"
    push(models[0], base, Terms("next", labels=kept), check=untried)
    push(models[1], base, Terms("next", labels=kept, label="canary"), check=untried)
    (tmp_path / "models.config").unlink()
    assert versions.ServingBase(base).live_version() == 2
    assert push(models[2], base, Terms("next"), check=untried).label == ""
    assert not (tmp_path / "models.config").exists()


def test_other_models_and_the_users_own_words_stay(models, tmp_path, kept):
    (tmp_path / "models.config").write_text("""# ours
model_config_list {
  config { name: "other" base_path: "/models/other" version_labels { key: "stable" value: 7 } }
  config { name: "shop" base_path: "/models/shop" model_version_policy { latest { num_versions: 4 } } }
}
""")
    push(models[0], tmp_path / "serving", Terms("next", labels=kept), check=untried)
    assert (tmp_path / "models.config").read_text().startswith("# ours\nmodel_config_list")
    assert parsed(kept)["shop"].base_path == "/models/shop"  # as the server sees it
    assert parsed(kept)["shop"].model_version_policy.latest.num_versions == 4
    assert dict(parsed(kept)["other"].version_labels) == {"stable": 7}
    assert labels.read(kept) == {"stable": 1}


def test_a_file_that_is_none_is_not_overwritten(models, tmp_path, kept):
    (tmp_path / "models.config").write_text("versions: [1]")
    with pytest.raises(PushError, match=r"models\.config: not TensorFlow Serving's models\.config"):
        push(models[0], tmp_path / "serving", Terms("next", labels=kept), check=untried)
    assert (tmp_path / "models.config").read_text() == "versions: [1]"
    assert versions.ServingBase(tmp_path / "serving").directories() == {}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"base": "b", "label": "canary"}, r"push\.label: labels are written to a models\.config"),
        (
            {"base": "b", "models_config": "m"},
            r"push\.keep: with models_config, TensorFlow Serving loads every",
        ),
    ],
)
def test_labels_need_a_file_and_a_number_of_versions(section, message):
    from tfx_ranking.components import config as ranking_config
    from tfx_ranking.components.errors import ConfigError

    raw = {"name": "a", "data": {"input": "x", "format": "csv"}, "items": {"f": {}}, "push": section}
    with pytest.raises(ConfigError, match=message):
        ranking_config.parse(raw)
