"""What lies in `manual_dir`: finding source shards and reading their rows.

Nothing here imports TensorFlow, TFDS or Beam. Rows leave this package as
`pyarrow.RecordBatch`es (`rows.SourceBatch`).
"""
