"""Questions about screenshots: JSON lines, and tiles in tars or in a folder.

json_lines, questions (what a line says), tile_paths (which paths are taken),
tile_index (where the tiles lie in tars) -> tile_reader (their bytes) ->
question_plan, question_source (rows with their tiles), tile_source (tiles alone).
Layout: StarTrail-org/PixelRAG, `train/docs/natural_filtered_v2.md`; the tars are
written by `train/package_hf_image_shards.py`, the lines by
`train/prepare_hf_dataset.py`.
"""
