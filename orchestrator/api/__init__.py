"""The orchestrator's HTTP faces."""
