"""Trains with main.py as a process of its own: ``python -m tests.several_devices FOLDER DEVICES [FLAGS]``.

FOLDER holds small.yaml; DEVICES is the number of logical CPU devices. Statistics are written with all their digits. The
environment variable SLOW_CHECKPOINTS has seconds that each checkpoint takes longer, as on a network drive.
"""

import os
import sys
import time

from facegcn.backends.start import tensorflow


def main(folder: str, devices: str, *flags: str) -> int:
    tf = tensorflow()
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0],
                                               [tf.config.LogicalDeviceConfiguration()] * int(devices))
    from facegcn.training import callbacks
    from main import main as train

    callbacks.round = lambda value, digits: value
    save, seconds = tf.train.CheckpointManager.save, float(os.environ.get("SLOW_CHECKPOINTS", 0))
    tf.train.CheckpointManager.save = lambda *given: (time.sleep(seconds), save(*given))[1]
    return train(["--config", f"{folder}/small.yaml", "--mode", "train", *flags])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
