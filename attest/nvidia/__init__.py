"""NVIDIA confidential-computing devices: SPDM measurement reports, reference manifests (RIMs) and what they must say."""
