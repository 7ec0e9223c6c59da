"""The versions under a base directory, and which of them is live."""

import subprocess
import sys

import pytest
from bare_models import make_model

from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push.versions import ServingBase


def test_live_is_the_highest_version_that_loads(tmp_path):
    assert ServingBase(tmp_path / "nowhere").live_version() is None
    make_model(tmp_path / "9")
    make_model(tmp_path / "010")
    make_model(tmp_path / ".pushing")
    make_model(tmp_path / "12a")
    make_model(tmp_path / "-3")
    assert ServingBase(tmp_path).live_version() == 10  # a number, not a text: 010 is above 9
    (tmp_path / "11" / "variables").mkdir(parents=True)  # no graph
    make_model(tmp_path / "12")
    (tmp_path / "12" / "variables" / "variables.index").unlink()  # loads in Serving and fails at request time
    assert list(ServingBase(tmp_path).directories()) == [9, 10, 11, 12]
    assert ServingBase(tmp_path).live_version() == 10
    make_model(tmp_path / "13")
    (tmp_path / "13" / "saved_model.pb").rename(tmp_path / "13" / "saved_model.cpb")
    assert ServingBase(tmp_path).live_version() == 13


def test_state_of_an_empty_and_of_a_filled_destination(tmp_path):
    base = tmp_path / "serving"
    assert ServingBase(base).state() == {"base": str(base), "version": "", "digest": ""}
    model = make_model(base / "4")
    assert ServingBase(base).state() == {
        "base": str(base),
        "version": "4",
        "digest": model_files.digest(model),
    }
    assert ServingBase("memory://test_live_model/none").state()["version"] == ""
    with pytest.raises(RankingError, match="nowhere://x: cannot be reached: Unsupported filesystem: 'nowhere'"):
        ServingBase("nowhere://x").state()


def test_reading_versions_loads_neither_tensorflow_nor_tfx():
    code = (
        "import sys; import tfx_ranking.components.push.versions, tfx_ranking.components.push.pushing;"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'tensorflow', 'tfx', 'apache_beam'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
