"""NVIDIA confidential-computing devices: SPDM measurement reports and the reference manifests (RIMs) behind them."""
