from tfx_ranking.pipelines.cli.command_tree import main

raise SystemExit(main())
