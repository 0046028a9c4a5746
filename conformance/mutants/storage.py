"""All broken stores: one list, from one module for each kind of fault."""

from __future__ import annotations

from wren.conformance.mutants import storage_calls as storage_calls
from wren.conformance.mutants import storage_grants as storage_grants
from wren.conformance.mutants import storage_keys as storage_keys
from wren.conformance.mutants import storage_listings as storage_listings
from wren.conformance.mutants import storage_reads as storage_reads
from wren.conformance.mutants import storage_writes as storage_writes
from wren.conformance.mutants.sound_storage import MUTANTS as MUTANTS
from wren.conformance.mutants.sound_storage import Sound as Sound
