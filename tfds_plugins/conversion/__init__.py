"""From a folder of source shards to a prepared TFDS dataset.

plan -> tasks -> receipts -> finalize; `builder.ConversionBuilder` runs them
inside `download_and_prepare`.
"""
