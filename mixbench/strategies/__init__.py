"""The built-in strategies, one file each; `mixbench.registry` finds them by name."""
