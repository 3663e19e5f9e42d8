"""What a check may find, in words, and which of it is no more than a suspicion."""

from __future__ import annotations

KINDS = {
    # rows of the manifest
    "fields": "another number of fields than the header",
    "image": "no image named",
    "listed_twice": "an image listed twice",
    "patient": "no patient_id",
    "label": "a label that is none of the classes",
    "partition": "an unknown partition",
    "patient_in_two_partitions": "a patient in two partitions of the manifest",
    "similar_patients": "patients whose names differ in capitals, spaces or leading zeros alone",
    "shared_study": "patients that share one study",
    # images
    "missing": "no such file",
    "unreadable": "truncated, damaged, refused, or of a kind that is not read",
    "not_finite": "NaN or infinite pixels",
    "constant": "one value in every pixel",
    "too_small": "fewer than 16 pixels along a side",
    "odd_size": "another size than nearly all other images",
    "inverted_contrast": "black and white seem exchanged",
    "burned_in_text": "text seems burned into the pixels, or the header says so",
    # masks
    "mask_missing": "no such mask",
    "mask_unreadable": "a mask that cannot be read",
    "mask_off_grid": "a mask that does not lie on its image",
    "mask_overlap": "named structures of a mask that overlap",
    "mask_values": "a mask with values that are none of the structures",
    "mask_empty": "a mask without any structure",
    # images that a segmentation cannot take together
    "channels": "channels that the job does not take",
    "dimensions": "a picture among volumes, or a volume among pictures",
    "no_spacing": "no voxel spacing, where it is needed",
    "other_unit": "values of another unit, or none",
    # copies
    "identical_images": "identical images of different patients",
    "near_duplicates": "nearly identical images of different patients",
    "conflicting_labels": "one image, or near copies of one patient's, with several labels",
}
"""Kinds of faults in words; docs/data.md lists them."""
SUSPICIONS = ("odd_size", "burned_in_text")
"""Kinds that are often found in sound data sets: told, but a check fails for them only where that is asked for."""
