"""`orchestrator demo`: the main job from end to end, with real processes and emulated GPUs."""

from __future__ import annotations

from orchestrator.demo.show import run

__all__ = ["run"]
