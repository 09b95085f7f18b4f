"""From rows to records: images made uniform, `tf.train.Example`, record files.

Nothing here imports TensorFlow: a worker process stays small and starts fast.
"""
