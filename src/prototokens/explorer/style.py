"""The page's style sheet, and the script that shows what a cell or a point stands for.

Colours are mixed with the page's own background, so that both themes can be read.
"""

from __future__ import annotations

_TEXT = """
.gradio-container, .gradio-container > main { width: 100% !important; max-width: 1240px !important;
  margin: 0 auto !important; }
.gradio-container { --pt-blue: 9,105,218; --pt-red: 207,34,46; --pt-green: 26,127,55;
  --pt-violet: 130,80,223; --pt-amber: 188,76,0; --pt-line: rgba(127,127,127,.32); }
.dark .gradio-container, .gradio-container.dark, .dark { --pt-blue: 88,166,255;
  --pt-red: 255,123,114; --pt-green: 74,194,107; --pt-violet: 188,140,255;
  --pt-amber: 240,160,80; }
.gradio-container .html-container { padding: 0 !important; }
#top { align-items: center; } #top h1 { margin-bottom: 2px; } #top p { margin: 0; }
#said:not(:has([class^=pt-])) { display: none; }
.pt-lead { font-size: 16px; line-height: 1.5; margin: 2px 0 4px; max-width: 78ch; }
.pt-lead b { font-weight: 600; }
.pt-text { white-space: break-spaces; overflow-wrap: anywhere; line-height: 1.9; font-size: 15px;
  font-family: ui-monospace, Menlo, Consolas, monospace; padding: 10px 12px;
  border: 1px solid var(--border-color-primary); border-radius: 8px; }
.pt-token { border-radius: 4px; padding: 2px 0;
  box-shadow: inset 0 0 0 0.5px rgba(127,127,127,.28); }
.pt-right { background: rgba(34,160,80,.26); }
.pt-wrong { background: rgba(214,60,60,.26);
  text-decoration: underline wavy rgba(214,60,60,.9) 1px; }
.pt-patched { background: rgba(130,80,223,.16); border-bottom: 2px dotted rgba(130,80,223,.8); }
.pt-margin { background: rgba(var(--pt-hue), calc(.18 + .32 * var(--pt-deep))); }
.dark .pt-margin { background: rgba(var(--pt-hue), calc(.5 + .4 * var(--pt-deep))); }
.dark .pt-right { background: rgba(46,160,67,.5); }
.dark .pt-wrong { background: rgba(218,54,51,.55); }
.dark .pt-patched { background: rgba(137,87,229,.45); }
.pt-token:focus { outline: 2px solid var(--color-accent); outline-offset: 1px; }
.pt-token:focus::after { content: attr(title); position: fixed; left: 50%; bottom: 14px;
  transform: translateX(-50%); z-index: 50; padding: 6px 14px; border-radius: 8px;
  background: #1f2328; color: white; font: 14px system-ui, sans-serif;
  white-space: nowrap; box-shadow: 0 0 0 1px rgba(255,255,255,.4); }
.pt-legend { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 8px; margin: 8px 0 0;
  font-size: 13px; }
.pt-swatches { display: inline-flex; width: 170px; height: 14px;
  border: 1px solid var(--border-color-primary); }
.pt-swatches i { flex: 1; }
.pt-wait { opacity: .45; }
.pt-facts { display: flex; flex-wrap: wrap; gap: 6px 22px; margin: 0 0 10px; }
.pt-facts div { min-width: 76px; }
.pt-facts b { display: block; font-size: 19px; font-variant-numeric: tabular-nums; }
.pt-facts span { font-size: 12px; opacity: .75; }
.pt-problem { border-left: 4px solid #d9480f; padding: 8px 12px; background: rgba(217,72,15,.12);
  border-radius: 4px; }
.pt-note { opacity: .82; font-size: 14px; margin: 4px 0; line-height: 1.45; }
.pt-good { color: #1a7f37; font-weight: 600; } .dark .pt-good { color: #4ac26b; }
.pt-bad { color: #cf222e; font-weight: 600; } .dark .pt-bad { color: #ff7b72; }
.pt-head { font-size: 15px; font-weight: 600; margin: 14px 0 2px; }
.gradio-container input[role=combobox] { padding-right: 28px !important; text-overflow: ellipsis; }
.pt-cards { display: flex; flex-wrap: wrap; gap: 14px 18px; align-items: flex-start; }
.pt-cards > * { min-width: 0; max-width: 100%; }
/* Words make no card wider than its picture. */
.pt-cards > :not(.pt-grow) > :is(.pt-note, .pt-head) { width: 0; min-width: 100%; }
.pt-grow { flex: 1 1 320px; }
@media (max-width: 700px) {
  .tab-container button { padding: 0 7px !important; font-size: 14px !important; }
  #top { flex-wrap: wrap; gap: 6px; } #top > :first-child { flex: 1 0 100%; }
  .gradio-container .html-container { padding: 0 !important; }
#top { align-items: center; } #top h1 { margin-bottom: 2px; } #top p { margin: 0; }
#said:not(:has([class^=pt-])) { display: none; }
.pt-lead { font-size: 15px; }
}
"""

_PICTURES = """
.pt-picture { overflow-x: auto; margin: 8px 0; } .pt-picture img { max-width: none; width: 100%;
  background: white; border-radius: 6px; }
.pt-picture::-webkit-scrollbar, .pt-table::-webkit-scrollbar, .pt-heat::-webkit-scrollbar {
  height: 8px; width: 8px; }
.pt-picture::-webkit-scrollbar-thumb, .pt-table::-webkit-scrollbar-thumb,
.pt-heat::-webkit-scrollbar-thumb { background: rgba(127,127,127,.6); border-radius: 4px; }
.pt-sideways { display: none; }
@media (max-width: 700px) { .pt-sideways { display: block; font-size: 12px; opacity: .8; } }
.pt-chart { margin: 8px 0 4px; min-width: 0; flex: 1 1 320px; }
.pt-chart figcaption { font-size: 13px; margin: 0 0 4px; }
.pt-keys { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12px; margin: 2px 0 4px; }
.pt-keys i { display: inline-block; width: 18px; height: 0; border-top: 2.5px solid;
  vertical-align: middle; margin-right: 5px; }
.pt-plot { display: grid; grid-template-columns: 44px 1fr; grid-template-rows: 150px 18px 16px;
  font-size: 11px; font-variant-numeric: tabular-nums; padding-right: 14px; }
.pt-plot i { font-style: normal; }
.pt-y, .pt-x { position: relative; opacity: .8; }
.pt-y i { position: absolute; right: 6px; transform: translateY(50%); line-height: 1; }
.pt-x { grid-column: 2; } .pt-x i { position: absolute; top: 4px; transform: translateX(-50%);
  white-space: nowrap; }
.pt-xname { grid-column: 2; text-align: center; opacity: .8; }
.pt-area { position: relative; border: solid var(--pt-line); border-width: 0 0 1px 1px; }
.pt-area svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.pt-area > i { position: absolute; top: 0; bottom: 0; }
.pt-area > i:hover { background: rgba(127,127,127,.16); }
.pt-area > b { position: absolute; top: 0; bottom: 0; border-left: 2px dashed currentColor;
  opacity: .6; }
.pt-heat { overflow: auto; max-height: 640px; max-width: 100%; border-radius: 6px; }
.pt-heat table { border-collapse: separate; border-spacing: 1px; font-size: 12px; margin: 0;
  border: none !important; font-variant-numeric: tabular-nums; }
.pt-heat th, .pt-heat td { border: none !important; padding: 0 4px; height: 23px; line-height: 1.1;
  text-align: center; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.pt-heat td { min-width: 34px; max-width: 66px; border-radius: 3px;
  background: rgba(var(--pt-of), calc(.62 * var(--pt-a, 0))); }
.pt-heat td.pt-first { box-shadow: inset 0 0 0 1.5px rgba(var(--pt-of), .9); font-weight: 600; }
.pt-heat td:hover { outline: 2px solid var(--color-accent); outline-offset: -2px; }
.pt-heat th { font-weight: 500; opacity: .85; background: var(--background-fill-primary); }
.pt-heat tr:first-child th { position: sticky; top: 0; z-index: 2; opacity: 1; }
.pt-heat th:first-child { position: sticky; left: 0; z-index: 1; text-align: right;
  max-width: 104px; opacity: 1; font-family: ui-monospace, Menlo, Consolas, monospace; }
.pt-heat tr:first-child th:first-child { z-index: 3; font-family: inherit; white-space: normal;
  font-size: 11px; width: 1px; }
.pt-words td { min-width: 46px; max-width: 58px; padding: 0 2px; font-size: 10.5px;
  font-family: ui-monospace, Menlo, Consolas, monospace; }
.pt-plane svg { width: 100%; max-width: 440px; height: auto; display: block; }
.pt-plane text { font-size: 11px; fill: currentColor; }
.pt-table { overflow-x: auto; max-width: 100%; }
.pt-table table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums;
  border: none !important; margin: 4px 0 12px; }
.pt-table td, .pt-table th { border: 1px solid var(--border-color-primary); padding: 4px 8px;
  text-align: right; }
.pt-words-table :is(td, tr:first-child th:last-child) { text-align: left !important; }
@media (max-width: 700px) {
  .pt-table table { font-size: 12px; } .pt-table td, .pt-table th { padding: 4px; }
  .pt-heat td { min-width: 30px; padding: 0 2px; }
  .pt-words td { min-width: 36px; max-width: 36px; padding: 0 1px; font-size: 10px; }
  .pt-heat th:first-child { max-width: 66px; padding: 0 3px 0 0; }
}
#pt-tip { position: fixed; z-index: 1000; pointer-events: none; max-width: min(340px, 92vw);
  padding: 5px 10px; border-radius: 6px; background: #1f2328; color: white;
  font: 13px/1.4 system-ui, sans-serif; white-space: pre-line;
  box-shadow: 0 0 0 1px rgba(255,255,255,.35); display: none; }
"""

_RESULTS = """
#results-rows .header-cell .cell-menu-button { display: flex; }
#results-rows thead :is(.header-content, .header-button, span) { white-space: normal; }
#results-report table { display: block; overflow-x: auto; border: none; margin: 8px 0 14px; }
#results-report :is(td, th) { white-space: nowrap; font-size: 13px; padding: 4px 9px;
  border: 1px solid var(--border-color-primary) !important; }
#results-report h1 { font-size: 20px; } #results-report h2 { font-size: 17px; }
@media (max-width: 700px) { #results-report { font-size: 14px; }
  #results-report :is(td, th) { padding: 3px 6px; font-size: 12px; } }
"""

_RACE = """
.pt-race { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; margin-top: 4px; }
@media (max-width: 700px) { .pt-race { grid-template-columns: 1fr; } }
.pt-late { opacity: .12; animation: pt-come 1ms linear forwards; }
@keyframes pt-come { to { opacity: 1; } }
.pt-clock { font-size: 26px; font-weight: 700; font-variant-numeric: tabular-nums; }
.pt-clock::after { counter-reset: pt var(--pt-clock); content: counter(pt) ' ms'; }
.pt-clock { --pt-clock: var(--pt-end); animation: pt-run linear;
  animation-duration: var(--pt-lasts); }
@keyframes pt-run { from { --pt-clock: 0; } to { --pt-clock: var(--pt-end); } }
.pt-again { border: 1px solid var(--border-color-primary); border-radius: 6px; padding: 3px 12px;
  font-size: 13px; cursor: pointer; background: var(--background-fill-secondary); }
"""
CSS = _TEXT + _PICTURES + _RESULTS + _RACE
# Shows `data-tip` of what the pointer is on, or a finger has touched; `data-again` restarts the
# animation of the race beside it.
HEAD = """
<script>
(() => {
  // As `@property` in the style sheet would, which Gradio drops.
  try {
    CSS.registerProperty(
      {name: '--pt-clock', syntax: '<integer>', inherits: true, initialValue: '0'});
  } catch (error) { /* it is registered, or unknown to this browser: the clock then jumps */ }
  const box = () => document.getElementById('pt-tip') ||
    document.body.appendChild(Object.assign(document.createElement('div'), {id: 'pt-tip'}));
  const hide = () => { box().style.display = 'none'; };
  const show = event => {
    const from = event.target.closest && event.target.closest('[data-tip]');
    if (!from) return hide();
    const tip = box();
    tip.textContent = from.dataset.tip;
    tip.style.display = 'block';
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + 18;
    const top = below + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12
      : below;
    tip.style.left = Math.max(4, left) + 'px';
    tip.style.top = Math.max(4, top) + 'px';
  };
  document.addEventListener('pointermove', show);
  document.addEventListener('pointerdown', show);
  document.addEventListener('scroll', hide, true);
  document.addEventListener('click', event => {
    const again = event.target.closest && event.target.closest('[data-again]');
    if (!again) return;
    const race = again.parentElement.querySelector('.pt-race');
    race.replaceWith(race.cloneNode(true));
  });
})();
</script>
"""
