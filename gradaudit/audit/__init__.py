"""An audit: its settings, which steps it takes, how each is judged, and the verdict on a run.

One job: records of steps to the verdict on a run. `session.py` is what every door uses;
`observer.py` is what the backend that runs the steps asks of it. Rejected: doing this in the Keras
callback, where no other door (a single step, recorded steps) could use it.
"""
