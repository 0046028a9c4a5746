"""All broken adapters of a platform."""

from __future__ import annotations

from wren.conformance.mutants import compute_answers as compute_answers
from wren.conformance.mutants import compute_endings as compute_endings
from wren.conformance.mutants import compute_refusals as compute_refusals
from wren.conformance.mutants.sound_compute import MUTANTS as MUTANTS
from wren.conformance.mutants.sound_compute import Sound as Sound
