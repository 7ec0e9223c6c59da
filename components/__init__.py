if __name__ == "components":
    raise ImportError("Import tfx_ranking.components: as `components` every class here would exist a second time.")
