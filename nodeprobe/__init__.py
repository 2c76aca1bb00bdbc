"""The node's side (RFC 9334: the Attester): what hardware is here, evidence on demand, the worker's agent."""
