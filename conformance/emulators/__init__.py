"""Servers that stand in for the clouds, on loopback ports of this machine."""
