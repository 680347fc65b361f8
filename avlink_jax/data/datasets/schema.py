"""Schema of the examples of every built data set.

    id              Text      unique in the data set
    media           Text      the clip's encoded file, byte for byte as it was on disk (a recording
                              that several clips are cut from is stored with each)
    suffix          Text      '.mp4', '.flac', ...: the file's kind, lower case
    start, end      float64   seconds on the clock of `media.decode`: the clip is [start, end) of
                              the file; 0 and its length where the file is the clip
    audio_caption   Text      what is heard, '' where unknown
    video_caption   Text      what is seen, '' where unknown
    labels          Sequence(Text)  as the data set spells them
    licence         Text      '' where the data set gives none
    metadata        Text      JSON object: more of the clip's own columns, as they were

Text is bytes to tfds without TensorFlow, and a protocol buffer stores bytes as they are: `media` is
read back exactly and takes no more space than the file. (A uint8 tensor would be eight times as
large, or pass through NumPy needlessly.) Numbers are float32 in a protocol buffer unless encoded,
which is off by a millisecond after a few hours: hence `bytes`.
"""

import json

import numpy as np
import tensorflow_datasets as tfds


def features() -> tfds.features.FeaturesDict:
  """Features of all builders: Text and Tensor alone, which need no TensorFlow."""
  text = tfds.features.Text
  seconds = {'shape': (), 'dtype': np.float64, 'encoding': 'bytes'}
  return tfds.features.FeaturesDict({
    'id': text(), 'media': text(), 'suffix': text(),
    'start': tfds.features.Tensor(**seconds), 'end': tfds.features.Tensor(**seconds),
    'audio_caption': text(), 'video_caption': text(),
    'labels': tfds.features.Sequence(text()), 'licence': text(), 'metadata': text()})


def read(example: dict) -> dict:
  """Converts an example of tfds: str for its texts (`media` stays bytes) and plain floats."""
  plain = {name: value.decode() for name, value in example.items()
           if isinstance(value, bytes) and name != 'media'}
  return {**plain, 'media': example['media'], 'start': float(example['start']),
          'end': float(example['end']), 'labels': [label.decode() for label in example['labels']],
          'metadata': json.loads(plain['metadata'])}
