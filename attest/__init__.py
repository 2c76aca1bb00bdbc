"""Verify and appraise attestation evidence (RFC 9334: the Verifier). Knows no network, no database, no clock."""
