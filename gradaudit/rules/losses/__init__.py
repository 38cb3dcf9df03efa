"""Rules of Keras losses, a family a file: loss of each sample; `reduction` makes them a number."""
