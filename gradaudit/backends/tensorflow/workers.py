"""Several processes that train one model: the number of this one, and a barrier."""

import tensorflow as tf


def worker(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Return the number of this process among the workers, and the number of workers."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return 0, 1
    cluster = resolver.cluster_spec().as_dict()
    tasks = [(kind, i) for kind in ("chief", "worker") for i in range(len(cluster.get(kind, ())))]
    task = (resolver.task_type, resolver.task_id)
    return (tasks.index(task), len(tasks)) if task in tasks else (0, 1)


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Wait until every worker has called this: they all take part in one sum."""

    def one() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.ones(()))

    tf.function(lambda: strategy.run(one))()
