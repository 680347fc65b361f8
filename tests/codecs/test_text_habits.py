"""What is done to prompts before published text encoders read them."""

import pytest

from avlink_jax.codecs.text_habits import Habits, clean, suffix


@pytest.mark.parametrize('seconds, text', [
    (5.16, ' duration: 5.2s'), (5.0625, ' duration: 5.1s'), (30, ' duration: 30.0s'),
    (0.04, ' duration: 0.0s')])
def test_the_clip_s_length_has_one_decimal(seconds, text):
  assert suffix(seconds) == text


def test_an_empty_prompt_stays_empty():
  habits = Habits(clean=True, duration=True)
  assert [habits.text(prompt, 5.16) for prompt in ('', '  \n', ' rain ')] == [
      '', '', 'rain duration: 5.2s']


def test_without_habits_a_prompt_is_read_as_it_is():
  assert Habits().text(' “rain” ', None) == ' “rain” '


@pytest.mark.parametrize('prompt, text', [
    ('a  dog\tbarks\n', 'a dog barks'),
    ('“don’t” ‘stop’', '"don\'t" \'stop\''),
    ('Tom &amp;amp; Jerry &lt;3', 'Tom & Jerry <3'),
    ('ﬁre and ﬂame', 'fire and flame'),
    ('ＲＡＩＮ\u3000ﾄﾞﾗﾑ', 'RAIN ドラム'),
    ('e\u0301clat', 'éclat'),
    ('下雨 ½ 🥁', '下雨 ½ 🥁')])
def test_cleaning_keeps_words_and_drops_typography(prompt, text):
  assert clean(prompt) == text
  assert clean(text) == text
