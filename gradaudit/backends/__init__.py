"""The seam to a running trainer: one package for each framework that trains.

One job: turn a training step of a framework into a StepRecord. Rejected: callbacks that know how
Keras compiles its step, which ties every feature to one framework. `tensorflow` is the only
backend so far.
"""
