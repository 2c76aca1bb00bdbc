"""
The conformance suite: vectors as directories, run through the command line that users have. `make conformance` runs it.

    cases/*.toml    real recordings, described in our own words; the files lie outside the project and may be absent
    ../../fixtures  emulated recordings that are committed
    gpu, snp, …     emulated vectors, made anew each time from the emulator's tables of defects

Each vector is a directory with a `case.toml`, in the form that fixtures/README.md describes, and says which exit status
and which reason codes `attest verify` must give. Every code has a vector, or stands in `codes.WITHOUT_VECTOR` with the
reason why; and so has each attack of `codes.ATTACKS`.
"""
