"""An audit of many steps: which steps, how each is judged, and what the verdicts add up to.

One job: from records of steps to the verdict on a run. Rejected: doing this in the Keras callback,
where no other door (a single step, recorded steps) could use it.
"""
