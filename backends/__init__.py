"""Compute adapters, one module or package for each platform."""
