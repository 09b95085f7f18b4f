"""COYO-Labeled-300M: images and their classes."""
