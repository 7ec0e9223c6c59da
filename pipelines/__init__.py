if __name__ == "pipelines":
    raise ImportError("Import tfx_ranking.pipelines: as `pipelines` every class here would exist a second time.")
