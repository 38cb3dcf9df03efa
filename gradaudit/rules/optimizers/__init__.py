"""Rules of Keras optimizers, one file each: from a gradient and the slots to the new weight."""
