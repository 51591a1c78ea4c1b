"""Native loops on the CPU."""
