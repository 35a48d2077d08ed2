"""`python -m orchestrator.cli`: the command `toolweaver` where no script is installed."""

from orchestrator.cli.app import main

main()
