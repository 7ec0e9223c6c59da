"""Components small enough to see what a container's entry point does with them."""

import json
import os
import pathlib
import threading
import time

from tfx.dsl.components.base import base_executor

from tfx_ranking.components.exported import receipt


class Copy(base_executor.BaseExecutor):
    """Writes its receipt into its output, with what its input holds; fails if its parameter `fail` is set."""

    def Do(self, input_dict, output_dict, exec_properties):
        [made] = output_dict["model"]
        inputs = {name: artifacts[0] for name, artifacts in input_dict.items()}
        texts = [path.read_text() for each in inputs.values() for path in sorted(pathlib.Path(each.uri).glob("*"))]
        pathlib.Path(made.uri, "receipt.json").write_text(json.dumps(receipt.receipt(inputs)))
        if exec_properties.get("fail"):
            raise ValueError("as its parameter wants")
        if away := exec_properties.get("away"):  # this folder, for a second
            os.rename(away, f"{away}.away")
            threading.Timer(1.0, os.rename, (f"{away}.away", away)).start()
        made.set_string_custom_property("held", str(len(texts)))
        for name, artifact in inputs.items():
            made.set_string_custom_property(name, artifact.uri)


class Stubborn(base_executor.BaseExecutor):
    """Takes every error for an answer and goes on."""

    def Do(self, input_dict, output_dict, exec_properties):
        for _ in range(2):
            try:
                time.sleep(60)
            except Exception:
                continue
