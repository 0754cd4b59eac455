"""Training material: RichHF-18K, the Rapidata set, and composed scenes with known faults."""
