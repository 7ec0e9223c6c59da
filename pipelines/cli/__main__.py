"""Runs `tfx-ranking` as `python -m tfx_ranking.pipelines.cli`."""

from tfx_ranking.pipelines.cli.command_tree import main

raise SystemExit(main())
