"""Rules of the operations of keras.ops that stand in functional models by themselves."""
