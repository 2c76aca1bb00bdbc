"""The commands of `orchestrator`. Imports of the real work wait until a command runs, so that --help is quick."""
