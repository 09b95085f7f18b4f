"""COYO-700M: images and their alt-texts."""
