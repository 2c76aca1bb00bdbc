"""The registry of Confidential GPU workers (RFC 9334: the Relying Party): believes a worker as far as its evidence."""
