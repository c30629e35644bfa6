"""The page's style sheet: light and dark, phone and wide screen, paper."""

__all__ = ["CSS"]

CSS = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f5f6f8; --ink: #1b1f24;
  --soft: #57606a; --rule: #d8dee4; --good: #1a7f37; --bad: #b42318;
  --c0: #1f6feb; --c1: #d4540b; --c2: #1a7f37; --c3: #8250df; --c4: #b5890b; --c5: #c11574;
  --c6: #0e7c86; --c7: #6e5c4e; }
@media (prefers-color-scheme: dark) { :root { --paper: #0f1318; --card: #191f26; --ink: #e6eaef;
  --soft: #9aa5b1; --rule: #303842; --good: #56d364; --bad: #ff8b7e;
  --c0: #6cb0ff; --c1: #ff9d5c; --c2: #56d364; --c3: #c49bff; --c4: #e3c04f; --c5: #ff8fc7;
  --c6: #5ad1dc; --c7: #cbb3a0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 20px 16px 48px; max-width: 1320px; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
  -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 8px; }
h2 { font-size: 20px; margin: 36px 0 12px; padding-top: 8px; border-top: 1px solid var(--rule); }
h3 { font-size: 17px; margin: 0; }
p { margin: 0 0 8px; max-width: 80ch; }
.soft, figcaption p { color: var(--soft); font-size: 14px; }
.badge { display: inline-block; padding: 1px 10px; border-radius: 12px; font-size: 14px;
  vertical-align: 3px; border: 1px solid currentColor; white-space: nowrap; color: var(--soft); }
.badge.finished { color: var(--good); } .badge.diverged { color: var(--bad); }
.badge.running { color: var(--c0); }
.cards { display: grid; gap: 10px; margin: 16px 0; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.cards li { background: var(--card); border-radius: 8px; padding: 10px 14px; }
.cards b { display: block; font-size: 21px; font-variant-numeric: tabular-nums; }
.cards span { color: var(--soft); font-size: 14px; }
.figures { display: grid; gap: 28px 36px; grid-template-columns: minmax(0, 1fr); }
@media (min-width: 1000px) { .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  #loss { grid-column: 1 / -1; } }
figure { margin: 0; min-width: 0; }
figcaption p { margin: 0; }
.linear, .log { padding: 12px 22px 44px 52px; }
.log { display: none; }
.to-log:checked ~ .log { display: block; }
.to-log:checked ~ .linear { display: none; }
input[type=radio] { margin: 4px 5px 4px 0; accent-color: var(--c0); }
label { font-size: 14px; margin-right: 14px; }
svg.plot { display: block; overflow: visible; }
svg { fill: none; stroke-linecap: round; stroke-linejoin: round; }
.grid { stroke: var(--rule); stroke-width: 1; vector-effect: non-scaling-stroke; }
.line { stroke-width: 2.2; vector-effect: non-scaling-stroke; }
.faint { stroke-width: 1; opacity: .45; vector-effect: non-scaling-stroke; }
.dots { stroke-width: 1.2; vector-effect: non-scaling-stroke; }
.dashed { stroke-dasharray: 7 5; }
.c0 { --own: var(--c0); } .c1 { --own: var(--c1); } .c2 { --own: var(--c2); }
.c3 { --own: var(--c3); } .c4 { --own: var(--c4); } .c5 { --own: var(--c5); }
.c6 { --own: var(--c6); } .c7 { --own: var(--c7); }
.line, .faint, .dots, .dot { stroke: var(--own); }
.dot { stroke-width: 2; fill: var(--paper); }
.level { stroke: var(--own, var(--soft)); stroke-width: 1.2; stroke-dasharray: 5 4; }
svg text { font: 13px system-ui, sans-serif; fill: var(--soft); }
svg text.level-name { fill: var(--own, var(--ink)); stroke: var(--paper); stroke-width: 4px;
  paint-order: stroke; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 6px 0; padding: 0;
  list-style: none; font-size: 14px; }
.key { margin-right: 6px; vertical-align: -1px; }
.scroll { overflow-x: auto; margin: 0 0 12px; }
.scroll td { white-space: nowrap; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
th, td { text-align: right; padding: 3px 12px 3px 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
th { font-weight: 600; }
th:first-child, .facts td { text-align: left; }
.facts td { overflow-wrap: anywhere; }
.facts th { white-space: nowrap; color: var(--soft); font-weight: 400; }
.facts { width: 100%; table-layout: auto; }
.columns { display: grid; gap: 8px 36px; grid-template-columns: minmax(0, 1fr); }
@media (min-width: 1000px) { .columns { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--soft); font-size: 14px; }
pre { background: var(--card); border-radius: 8px; padding: 10px 14px; margin: 6px 0 14px;
  white-space: pre-wrap; overflow-wrap: anywhere; font: 14px/1.45 ui-monospace, monospace; }
.sample { margin: 0 0 14px; }
.sample pre { font: 15px/1.5 Georgia, serif; margin: 2px 0; }
@media print { details { display: none; } figure { break-inside: avoid; } }
"""
