"""Reading a prepared dataset in batches.

records (batches of serialized examples, in TFDS's order) -> features
(one parse a batch) -> dataset; `builder.BatchReaderBuilder` is where TFDS
calls it.
"""
