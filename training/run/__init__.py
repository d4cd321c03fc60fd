"""How a run goes: its loop, its adversary, its held-out faces, and how it shows itself."""
