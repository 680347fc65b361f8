"""Folders in the published form of each data set: a few rows, with made clips as the media."""

import json

import av
import numpy as np

from tests import made_clips

RATE = 44100


def video(path, seconds=2.0, flash=3):
  """A small clip with picture and sound."""
  path.parent.mkdir(parents=True, exist_ok=True)
  made_clips.make_clip(path, made_clips.steady(6, seconds), flash=flash)


def sound(path, seconds=2.0, level=0.3):
  """A tone as an mp3 (or what the suffix says)."""
  path.parent.mkdir(parents=True, exist_ok=True)
  wave = level * np.sin(np.arange(round(seconds * RATE)) * 0.05)
  codec = {'.mp3': 'mp3', '.wav': 'pcm_s16le'}[path.suffix]
  form = {'.mp3': 's16p', '.wav': 's16'}[path.suffix]
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=RATE, layout='mono')
    samples = (wave * 32767).astype(np.int16)
    for first in range(0, len(samples), 1152):
      frame = av.AudioFrame.from_ndarray(samples[None, first:first + 1152], form, 'mono')
      frame.sample_rate, frame.pts = RATE, first
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def write(path, *lines):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def vggsound(root):
  write(root / 'vggsound.csv', '-abc_DEF012,30,"dog barking, howling",train',
        'ghi,0,playing piano,test', 'jkl,12,hail,train')
  video(root / 'a' / '-abc_DEF012_000030.mp4')
  video(root / 'b' / 'ghi.mp4')
  video(root / 'b' / 'jkl_12_22.webm.mp4')  # another name: this row has no file


def audioset_strong(root):
  header = 'segment_id\tstart_time_seconds\tend_time_seconds\tlabel'
  write(root / 'audioset_train_strong.tsv', header, 's9d-2nhuJCQ_30000\t2.627\t7.237\t/m/053hz1',
        'b_c_0\t0.000\t10.000\t/m/09x0r', 's9d-2nhuJCQ_30000\t0.100\t0.500\t/m/09x0r')
  write(root / 'audioset_eval_strong.tsv', header, 'e_10000\t1.0\t2.0\t/m/053hz1')
  write(root / 'mid_to_display_name.tsv', '/m/053hz1\tCheering', '/m/09x0r\tSpeech')
  video(root / 'videos' / 'Ys9d-2nhuJCQ_30000.mp4')
  video(root / 'videos' / 'b_c_000000.mp4')
  video(root / 'videos' / 'e_10_20.mp4')


def autorecap(root):
  lines = [{'vid': {'intervals': [{'start': 3.5, 'end': 5.5, 'text': 'rain falls'},
                                  {'start': 0.25, 'end': 1.5, 'text': 'a bell rings'}]}},
           {'w-_': {'intervals': [{'start': 0, 'end': 2.0}]}}]
  write(root / 'autocap_audioset_vggsounds.json', *(json.dumps(line) + ',' for line in lines))
  sound(root / '000000' / 'vid_000.wav')
  sound(root / '000000' / 'w-__000.wav')
  write(root / '000000' / 'vid_000.json', '{}')
  sound(root / 'whole' / 'vid.wav', 4.0)


def fma(root):
  groups = ['', 'set', 'set', 'track', 'track', 'track', 'track', 'artist']
  names = ['', 'split', 'subset', 'genre_top', 'genres', 'license', 'title', 'name']
  meta = root / 'fma_metadata'
  write(meta / 'tracks.csv', ','.join(groups), ','.join(names), 'track_id' + ',' * 7,
        '2,training,small,Hip-Hop,[21],Attribution-NonCommercial,Food,AWOL',
        '5,validation,medium,,"[21, 10]",,"This, World",AWOL',
        '1193,test,large,Pop,[10],,Freeway,K')
  write(meta / 'genres.csv', 'genre_id,#tracks,parent,title,top_level', '21,12693,0,Hip-Hop,21',
        '10,13845,0,Pop,10')
  for number in ('000002', '000005', '001193'):
    sound(root / 'fma_large' / number[:3] / f'{number}.mp3')


def magnatagatune(root):
  tags = '"clip_id"\t"no voice"\t"guitar"\t"slow"\t"mp3_path"'
  write(root / 'annotations_final.csv', tags, '"2"\t"0"\t"1"\t"1"\t"f/bach-30-59.mp3"',
        '"6"\t"0"\t"0"\t"0"\t"b/horn-0-29.mp3"', '"10"\t"1"\t"0"\t"0"\t"c/horn-59-88.mp3"')
  write(root / 'clip_info_final.csv', 'clip_id\ttrack_number\ttitle\tartist\talbum\turl',
        '2\t1\tBWV54 - I Aria\tAmerican Bach Soloists\tCantatas\thttp://example.org')
  for name in ('f/bach-30-59', 'b/horn-0-29', 'c/horn-59-88'):
    sound(root / 'mp3' / f'{name}.mp3')


def mtg_jamendo(root):
  header = 'TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS'
  rows = {'train': 'track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t124.6\tgenre---punk',
          'validation': 'track_0000382\tartist_000020\talbum_000046\t82/382.mp3\t211.1\t'
                        'genre---rock\tmood/theme---calm',
          'test': 'track_0786434\tartist_368880\talbum_092222\t34/786434.mp3\t460.8\tgenre---house'}
  for split, row in rows.items():
    write(root / 'data/splits/split-0' / f'autotagging-{split}.tsv', header, row)
  write(root / 'audio_licenses.txt', '14/214.mp3', 'A by B from Jamendo: http://jamendo.com/track/214',
        'Available under a Creative Commons Attribution license: http://cc.org/by/3.0/', '')
  sound(root / '14' / '214.mp3')
  sound(root / '82' / '382.low.mp3')
  sound(root / '34' / '786434.mp3')


def song_describer(root):
  write(root / 'song_describer.csv',
        'caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,duration',
        '859,1004034,"An electronic tune, fast",True,0,368880,118196,34/1004034.mp3,202.5',
        '860,1004034,Busy beats.,False,1,368880,118196,34/1004034.mp3,202.5')
  sound(root / 'audio' / '34' / '1004034.2min.mp3')


def movie_gen_bench(root):
  prompts = [{'id': 0, 'video_prompt': 'A person bites.', 'audio_prompt': 'juicy crunches'},
             {'id': 32, 'video_prompt': 'A corridor.', 'audio_prompt': 'footsteps'}]
  write(root / 'MovieGenAudioBenchSfx.jsonl', *map(json.dumps, prompts))
  for prompt in prompts:
    video(root / 'MovieGenAudioBenchSfx' / 'video_with_audio' / f'{prompt["id"]}.mp4')
