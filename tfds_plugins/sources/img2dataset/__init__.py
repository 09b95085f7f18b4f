"""What img2dataset writes: four formats, one way to read them (`source.py`)."""
