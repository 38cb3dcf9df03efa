"""Rules of Keras losses, one file each: loss of each sample; `reduction` makes them one number."""
