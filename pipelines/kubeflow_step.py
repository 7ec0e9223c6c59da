"""Runs `tfx_ranking.pipelines.kubeflow.step`; files that tfx-ranking 0.1.0 compiled name this module."""

from tfx_ranking.pipelines.kubeflow.step import main

if __name__ == "__main__":
    main()
