"""From files to batches: preprocessing done once into a store, then batches augmented on the training device.

``preprocess.build_store`` -> ``store.Store`` -> ``batches.Batches`` (with ``augment.Augment``). Import the modules by
name: this file stays empty, so that a worker process which only decodes images loads nothing else.
"""
