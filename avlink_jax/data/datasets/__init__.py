"""Public data sets as tfds builders: official lists and the user's own media become array_record.

Reads: `rows` (what a data set's list says of a clip) -> one file per data set -> `files` (finding
its media) -> `check` (can they be used?) -> `builder` (writing, with a report); then `source`
reads what was written.
Nothing here downloads anything, and nothing needs TensorFlow.
"""
