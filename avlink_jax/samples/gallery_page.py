"""HTML, style and script of the gallery (gallery.py)."""

SIDE = '''<section class="side"><h3>{name} <small>{note}</small></h3>
<{player} controls preload="none"{poster} src="{url}"></{player}>
<div class="scale"><div class="track" data-duration="{duration}" style="width:{{scale}}%">
{frames}{spectrogram}<div class="head"></div></div>
<div class="axis" style="width:{{scale}}%">{ticks}</div></div></section>
'''

BROKEN_SIDE = '<section><h3>{name}</h3><p class="none">{reason}</p></section>'

CARD = '''<article tabindex="0" data-name="{name}" {values}><h2>{id}</h2>{caption}
<p class="chips">{chips}</p><div class="sides">{body}</div></article>'''

SKIPPED = '''<section class="skipped"><h2>Left out</h2><ul>{rows}</ul></section>'''

TOOLS = '''<form class="tools"><input type="search" placeholder="Filter by name or prompt"
aria-label="Filter"><label>Sort by <select><option value="">order</option>{options}</select></label>
<span>j, k: next, previous clip; space: play</span></form>'''

LEGEND = '''<p class="legend"><i class="onset"></i> onset found in the sound
<i class="event"></i> exact time of an event
<span>Press play or click on a spectrogram to go there.</span></p>'''

PAGE = '''<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><header><h1>{title}</h1><p>{count} clips</p></header>
{scores}{legend}{overview}{tools}<main>{cards}</main>{skipped}<script>{script}</script></body></html>
'''

STYLE = '''
:root { color-scheme: light dark; --ink: light-dark(#1c1d21, #e6e6ea);
  --soft: light-dark(#6a6d76, #9a9da8); --page: light-dark(#f5f5f3, #141518);
  --card: light-dark(#fff, #1d1e23); --line: light-dark(#e2e2de, #303138); }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 24px 20px 60px; color: var(--ink);
  background: var(--page); font: 15px/1.45 system-ui, sans-serif; }
header { display: flex; align-items: baseline; gap: 14px; }
h1 { font-size: 22px; margin: 0; } h2 { font-size: 15px; margin: 0; overflow-wrap: anywhere; }
h3 { font-size: 13px; margin: 0; } small, header p, .legend, .axis, .none { color: var(--soft); }
small { font-weight: 400; margin-left: 4px; }
.scores { overflow-x: auto; margin: 14px 0; } .control { color: var(--soft); }
table { border-collapse: collapse; font-size: 14px; }
tr:first-child { color: var(--soft); }
th, td { padding: 3px 0 3px 18px; border-bottom: 1px solid var(--line); }
th { min-width: 150px; padding-left: 0; font-weight: 400; text-align: left; }
td { white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums; }
.legend { font-size: 13px; display: flex; flex-wrap: wrap; align-items: center; gap: 6px 8px; }
.legend i { width: 18px; height: 14px; background: #451077; border-radius: 2px;
  position: relative; }
.legend i::after { content: ""; position: absolute; left: 8px; width: 2px; bottom: 0; }
.legend .onset::after { top: 0; background: rgb(72,224,240); }
.legend .event::after { height: 6px; background: #fff; } .legend span { margin-left: 12px; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; margin: 16px 0; }
article { content-visibility: auto; contain-intrinsic-size: auto 420px; }
article:focus { outline: 2px solid var(--soft); }
.tools { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; font-size: 13px;
  color: var(--soft); } .tools input { min-width: 220px; }
.tools input, .tools select { font: inherit; color: var(--ink); background: var(--card);
  border: 1px solid var(--line); border-radius: 6px; padding: 3px 8px; }
.skipped { font-size: 14px; } .skipped li { overflow-wrap: anywhere; }
.track .wave { height: 40px; }
.prompt { margin: 4px 0 0; max-height: 6em; overflow: auto; overflow-wrap: anywhere; }
.chips { display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 4px 0 10px; font-size: 13px;
  color: var(--soft); } .chips b { font-weight: 400; } .chips span { color: var(--ink); }
.chips b { color: var(--soft); } .chips a { color: inherit; }
.side { display: grid; grid-template-columns: 264px 1fr; gap: 2px 14px; padding: 6px 0; }
.side h3 { grid-column: 1 / -1; } .side .scale { min-width: 0; }
video { width: 100%; height: 148px; background: #000; border-radius: 6px; object-fit: contain; }
audio { width: 100%; align-self: center; }
.track { position: relative; border-radius: 6px; overflow: hidden; cursor: pointer;
  background: #000004; } .track img { width: 100%; height: 148px; display: block; }
.track .strip { height: 54px; }
.silent { color: #aaa; text-align: center; line-height: 148px; font-size: 13px; }
.head { position: absolute; top: 0; bottom: 0; left: 0; width: 2px; background: #fff;
  box-shadow: 0 0 3px #000; visibility: hidden; }
.axis { position: relative; height: 18px; font-size: 11px; }
.axis i { position: absolute; transform: translateX(-50%); font-style: normal; }
.axis i:first-child { transform: none; } .axis i:last-child { transform: translateX(-80%); }
@media (max-width: 720px) { .side { grid-template-columns: 1fr; }
  video { height: auto; max-height: 240px; } .track img { height: 96px; }
  .track .strip { height: 36px; } }
'''

SCRIPT = '''
const players = [...document.querySelectorAll("video, audio")];
const near = new IntersectionObserver(entries => entries.forEach(entry => {
  if (entry.isIntersecting) entry.target.preload = "metadata";
}), {rootMargin: "800px"});
for (const player of players) {
  const track = player.closest(".side").querySelector(".track");
  const head = track.querySelector(".head");
  near.observe(player);
  const draw = () => {
    head.style.visibility = "visible";
    head.style.left = 100 * player.currentTime / track.dataset.duration + "%";
    if (!player.paused) requestAnimationFrame(draw);
  };
  player.addEventListener("play", () => {
    players.forEach(other => other === player || other.pause());
    draw();
  });
  player.addEventListener("seeked", draw);
  track.addEventListener("click", event => {
    const box = track.getBoundingClientRect();
    player.currentTime = (event.clientX - box.left) / box.width * track.dataset.duration;
  });
}
const cards = [...document.querySelectorAll("article")], main = document.querySelector("main");
const tools = document.querySelector(".tools");
if (tools) {
  const [search, order] = [tools.querySelector("input"), tools.querySelector("select")];
  const arrange = () => {
    const words = search.value.toLowerCase().split(/\\s+/);
    cards.forEach(card => card.hidden = !words.every(word => card.dataset.name.includes(word)));
    const value = card => Number(card.dataset[order.value] ?? -Infinity);
    main.append(...(order.value ? cards.toSorted((a, b) => value(b) - value(a)) : cards));
  };
  search.addEventListener("input", arrange);
  order.addEventListener("change", arrange);
  tools.addEventListener("submit", event => event.preventDefault());
}
document.addEventListener("keydown", event => {
  if (/^(INPUT|SELECT|VIDEO|AUDIO|BUTTON|A)$/.test(event.target.tagName)) return;
  const shown = [...document.querySelectorAll("article")].filter(card => !card.hidden);
  const at = shown.indexOf(document.activeElement.closest("article"));
  if (event.key === "j" || event.key === "k") {
    const next = shown[Math.min(Math.max(at + (event.key === "j" ? 1 : -1), 0), shown.length - 1)];
    next?.focus();
    next?.scrollIntoView({block: "nearest"});
  } else if (event.key === " ") {
    const player = (shown[at] ?? shown[0])?.querySelector("video, audio");
    if (player) player.paused ? player.play() : player.pause();
    event.preventDefault();
  }
});
'''
