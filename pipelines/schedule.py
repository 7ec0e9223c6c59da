"""The function that the job stores of tfx-ranking 0.1.0 name; it is in `tfx_ranking.pipelines.retraining`."""

from tfx_ranking.pipelines.retraining.schedule_service import due as due
