"""The names of the datasets.

Each has a folder, a module and a `Builder` of its own; they are imported when
they are asked for.
"""

DATASETS = (
  "laion400m",
  "coyo_labeled_300m",
  "coyo_700m",
  "screenshot_training_natural_filtered_v2",
)
