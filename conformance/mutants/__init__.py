"""Adapters that are broken on purpose: each must fail the checks that it names.

Each differs from a sound adapter in one way that real adapters, emulators or other
projects have been seen to get wrong. Only the tests of the suite itself import them.
"""
