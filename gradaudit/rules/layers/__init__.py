"""Rules of Keras layers, one file each."""
