"""How well text can be read on a page, as a browser measures it."""

# WCAG 2.2, 1.4.3: of all text that can be seen, on the grounds that are seen behind it
CONTRAST = """
() => {
  const parse = (c) => {
    const n = (c.match(/[\\d.]+(e-?\\d+)?/g) || []).map(Number);
    if (c.startsWith('color(')) return [255*n[0], 255*n[1], 255*n[2], n.length > 3 ? n[3] : 1];
    return [n[0], n[1], n[2], n.length > 3 ? n[3] : 1];
  };
  const over = (top, under) =>
    [0, 1, 2].map((k) => top[3]*top[k] + (1 - top[3])*under[k]).concat([1]);
  const ground = (e) => {
    const layers = [];
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c[3] > 0) layers.push(c);
      if (c[3] === 1) break;
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => {
      v /= 255;
      return v <= 0.04045 ? v/12.92 : Math.pow((v + 0.055)/1.055, 2.4);
    });
    return 0.2126*r + 0.7152*g + 0.0722*b;
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, e = node.parentElement;
    if (!node.textContent.trim() || !e.checkVisibility({visibilityProperty: true})) continue;
    if (e.closest('script, style, noscript, svg, [disabled]')) continue;
    const box = e.getBoundingClientRect();
    if (box.width < 2 || box.height < 2) continue;
    let seen = 1;
    for (let p = e; p; p = p.parentElement) seen *= Number(getComputedStyle(p).opacity);
    if (seen < 0.05) continue;
    const under = ground(e);
    const c = parse(getComputedStyle(e).color);
    const text = over([c[0], c[1], c[2], c[3]*seen], under);
    const [a, b] = [light(text), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05)/(b + 0.05);
    if (ratio < 4.5) low.push([ratio.toFixed(2), node.textContent.trim().slice(0, 40)]);
  }
  return low;
}
"""
