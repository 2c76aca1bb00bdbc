"""
Coverage-guided fuzzing of every parser: `make fuzz`, FUZZ_SECONDS of each.

Each target takes bytes and may raise what its parser documents; anything else is a finding, left in build/fuzz. Seeds
are made each time from the emulator. `python -m tests.fuzz NAME FILE` gives a target one input again.
"""
