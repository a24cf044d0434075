"""Text can be read on both grounds: the contrasts that WCAG 2.2 asks for at level AA (1.4.3)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.page.served import SCHEMA, Served, points
from tests.page.test_views import frames

#: Each text that is seen, with the ratio of its colour to the nearest opaque ground behind it, and what is asked of its size.
MEASURE = """() => {
  const channels = (text) => {
    const [r, g, b, a] = text.match(/[\\d.]+/g).map(Number);
    const scale = text.startsWith('color(') ? 255 : 1;  // what `color-mix` makes is told from 0 to 1
    return [r * scale, g * scale, b * scale, a];
  };
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = channels(getComputedStyle(at).backgroundColor);
      if (a > 0) layers.push([r, g, b, a]);
      if (a === 1) break;
    }
    return layers.reverse().reduce((below, [r, g, b, a]) => [r, g, b].map((v, i) => v * a + below[i] * (1 - a)), [255, 255, 255]);
  };
  const found = [];
  for (const element of document.body.querySelectorAll('*')) {
    const text = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join('');
    const style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    const isOff = element.closest(':disabled, [aria-disabled=true], [aria-hidden=true], svg');
    if (!text || isOff || !box.width || !box.height || style.visibility === 'hidden') continue;
    const behind = ground(element);
    const [r, g, b, a = 1] = channels(style.color);
    let opacity = a;
    for (let at = element; at; at = at.parentElement) opacity *= Number(getComputedStyle(at).opacity);
    const shown = [r, g, b].map((v, i) => v * opacity + behind[i] * (1 - opacity));
    const [low, high] = [light(shown), light(behind)].sort((x, y) => x - y);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    found.push({ text: text.slice(0, 40), ratio: (high + 0.05) / (low + 0.05), least: isLarge ? 3 : 4.5 });
  }
  return found;
}"""


@pytest.mark.parametrize("ground", ["light", "dark"])
def test_text_can_be_read(served: Served, tabs: Any, ground: str) -> None:
    key = f"contrast-{ground}"
    path = served.run(key, 403, ["det"], columns=SCHEMA)
    served.append(path, points(0, 20))
    served.array(path.rsplit("/", 1)[0], "camera", frames(3))
    tab = tabs(color_scheme=ground)
    texts = 0
    for view in ("plot", "image", "table", "meta"):
        tab.open(f"run={key}&tab={view}")
        tab.until("page.streams.length > 0")
        tab.page.wait_for_timeout(600)
        measured = tab.page.evaluate(MEASURE)
        texts += len(measured)
        assert [m for m in measured if m["ratio"] < m["least"]] == [], view
    assert texts > 80
