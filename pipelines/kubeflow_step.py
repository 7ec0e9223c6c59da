"""The entry point that pipelines compiled by tfx-ranking 0.1.0 name; it is `tfx_ranking.pipelines.kubeflow.step`."""

from tfx_ranking.pipelines.kubeflow.step import main

if __name__ == "__main__":
    main()
