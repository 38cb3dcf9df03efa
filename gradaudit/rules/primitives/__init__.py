"""Pure functions of arrays, each with its vector-Jacobian product: y and vjp.

One job: derive each piece of maths once. The rules of Keras's layers and operations bind to these
functions, and so do the entries of TensorFlow's ops. Rejected: letting an op build a Keras object
to reach the rule of that object. A primitive takes numbers and arrays, never a Keras object.
"""
