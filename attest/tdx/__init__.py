"""Intel TDX: quotes of trust domains, and the collateral that decides about them."""
