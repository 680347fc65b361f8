"""Frames as they are displayed, in the size that is asked for."""

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from avlink_jax.data.media.container import untagged_colours
from avlink_jax.data.media.limits import ASPECTS, Unusable, check_frame_size


class Scaler:
  """AVFrame -> uint8 (height, width, 3): upright, scaled to cover, cropped to the centre."""

  def __init__(self, stream, height, width):
    self._height, self._size = height, None if height is None or width is None else (height, width)
    self._aspect = float(stream.sample_aspect_ratio or 1)
    if not ASPECTS[0] <= self._aspect <= ASPECTS[1]:
      raise Unusable('corrupt stream')
    self._reformatter = VideoReformatter()

  def __call__(self, frame) -> np.ndarray:
    quarters = round(frame.rotation / 90) % 4  # counter-clockwise, as numpy.rot90 turns
    shown = (frame.height, max(1, round(frame.width * self._aspect)))
    if self._size is None:  # later frames follow the first, should the stream change size
      upright = shown[::-1] if quarters % 2 else shown
      scale = 1 if self._height is None else self._height / upright[0]
      self._size = tuple(max(1, round(scale * side)) for side in upright)
    height, width = self._size[::-1] if quarters % 2 else self._size
    cover = max(height / shown[0], width / shown[1])
    scaled = [max(side, round(cover * was))
              for side, was in zip((height, width), shown, strict=True)]
    check_frame_size(*scaled)
    image = self._reformatter.reformat(
      frame, width=scaled[1], height=scaled[0], format='rgb24', threads=1,
      # swscale's area filter is the right one for shrinking only.
      interpolation=(Interpolation.AREA if cover < 1 else Interpolation.BICUBIC)
      | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
      src_colorspace=untagged_colours(frame),
    ).to_ndarray()
    top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2
    return np.ascontiguousarray(np.rot90(image[top:top + height, left:left + width], quarters))
