"""Run by tests/test_devices.py as a process of its own, with two logical CPU devices: parts of a step on two replicas.

Prints one JSON object: the greatest relative difference between two replicas and one, by what was computed.
"""

import json

import numpy as np

from facegcn.backends.start import tensorflow

tf = tensorflow()
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0],
                                           [tf.config.LogicalDeviceConfiguration()] * 2)

import keras  # noqa: E402

from facegcn import losses, replicas  # noqa: E402
from facegcn.networks.normalization import BatchNorm  # noqa: E402
from facegcn.training.devices import started  # noqa: E402
from facegcn.training.optimizer import adam  # noqa: E402

BATCH, SIZE = 4, 8


def whole_batch() -> dict:
    """What differs between the halves of the batch: masks that are full and nearly empty, truth of the second only."""
    rng = np.random.default_rng(0)
    rgba = rng.uniform(-1, 1, (BATCH, SIZE, SIZE, 4)).astype(np.float32)
    mask = np.zeros((BATCH, SIZE, SIZE, 1), np.float32)
    mask[:2], mask[2:, :1, :2] = 1.0, 1.0
    truth = rng.uniform(-1, 1, (BATCH, 9, 3)).astype(np.float32)
    truth[:2] = np.nan
    return {"rgba": rgba, "render": rng.uniform(-1, 1, rgba.shape).astype(np.float32), "mask": mask,
            "texture": rng.uniform(-1, 1, truth.shape).astype(np.float32), "truth": truth}


class Part(keras.Model):
    """A critic with batch normalisation and its optimiser."""

    def __init__(self):
        super().__init__()
        keras.utils.set_random_seed(3)
        self.critic = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Conv2D(4, 3, use_bias=False),
                                        BatchNorm(), keras.layers.LeakyReLU(), keras.layers.Flatten(),
                                        keras.layers.Dense(1)])
        self.critic_optimizer = adam(1e-3, 0.05)
        self.critic_optimizer.build(self.critic.trainable_variables)

    def step(self, batch):
        """Terms, drawn numbers and gradients, and one step with them."""
        drawn = replicas.drawn(tf.shape(batch["rgba"])[0],
                               lambda count: tf.random.stateless_uniform((count, 1, 1, 1), (1, 2)))
        with tf.GradientTape() as tape:
            terms = losses.critic_losses(self.critic, batch["render"], batch["rgba"], drawn)
        gradients = replicas.mean(tape.gradient(terms["critic"], self.critic.trainable_variables))
        self.critic_optimizer.apply_gradients(zip(gradients, self.critic.trainable_variables))
        return replicas.mean({
            **terms, "pixel": losses.pixel_loss(batch["render"], batch["rgba"], batch["mask"]),
            "truth": losses.truth_loss(batch["texture"], batch["truth"]), "drawn": tf.reduce_sum(drawn * batch["rgba"]),
            **{f"gradient {number}": value for number, value in enumerate(gradients)}})


def results(part, run, batches) -> dict:
    """What two steps give, and the variables behind them."""
    for batch in batches:
        found = run(batch)
    variables = [*part.critic.variables, *part.critic_optimizer.variables]
    return {**{name: np.array(value) for name, value in found.items()},
            **{f"variable {number}": variable.numpy() for number, variable in enumerate(variables)}}


def main() -> None:
    batch = whole_batch()
    one = Part()
    expected = results(one, one.step, [batch] * 2)
    with started("all") as devices:
        assert devices.replicas == 2
        with devices.scope():
            two = Part()
        strategy = devices.strategy

        @tf.function(autograph=False)
        def run(values):
            found = strategy.run(two.step, args=(values,))
            return {name: strategy.experimental_local_results(value)[0] for name, value in found.items()}

        def of_replica(context):
            place = context.replica_id_in_sync_group * BATCH // 2
            return {name: tf.constant(value[place:place + BATCH // 2]) for name, value in batch.items()}

        values = strategy.experimental_distribute_values_from_function(of_replica)
        found = results(two, run, [values] * 2)
    found["drawn"] *= 2  # a sum, not a mean
    print(json.dumps({name: float(np.abs(found[name] - value).max() / (np.abs(value).max() + 1e-9))
                      for name, value in expected.items()}))


if __name__ == "__main__":
    main()
