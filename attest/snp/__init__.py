"""AMD SEV-SNP: reports, the certificates behind them, and the rules for what they say."""
