"""An audit: its settings, which steps it takes, how each is judged, and the verdict on a run.

One job: records of steps to the verdict on a run. `session.py` takes the steps of a training,
`step_files.py` those of files; `results.py` is what both make of the verdicts. `observer.py` is
what the backend that runs the steps asks of a session. Rejected: doing this in the Keras callback,
where no other door (a single step, recorded steps) could use it.
"""
