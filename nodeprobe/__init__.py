"""The node's side (RFC 9334: the Attester): what hardware is here, evidence on demand, an agent that keeps it registered."""
