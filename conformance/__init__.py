"""Executable contracts: what every `Storage` and `Compute` must do."""
