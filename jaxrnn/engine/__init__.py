"""How any layer runs over time. It knows no cell by name."""
