// Axes, lines and what all figures share. Sizes are CSS pixels; a plot is drawn anew when its width changes.

const LETTERS = 'ABCDEFGH';
const linear = (low, high) => ({ low, high, at: (v) => (v - low) / (high - low || 1) });
const fromZero = (high) => ({ low: 0, high, at: (v) => Math.log1p(Math.max(0, v)) / Math.log1p(high || 1) });
const logarithmic = (low, high) => ({ low, high, at: (v) => Math.log(v / low) / Math.log(high / low || 10) });

function niceTicks(low, high, most) {
  const raw = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(raw || 1));
  const step = [1, 2, 2.5, 5, 10].map((lead) => lead * power).find((size) => size >= raw * 0.999) || 10 * power;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) ticks.push(i * step + 0);
  return { ticks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0)) };
}

function stepTicks(longest, most) {
  const all = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6, 1e7].filter((t) => t <= longest);
  let ticks = all;
  for (let skip = 2; ticks.length > most; skip += 1) ticks = all.filter((_, i) => i % skip === 0);
  return [0, ...ticks];
}

function logTicks(low, high, most) {
  const powers = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p += 1) powers.push(10 ** p);
  const leads = powers.length <= 3 ? [1, 2, 5] : [1];
  let ticks = powers.flatMap((p) => leads.map((lead) => lead * p)).filter((t) => t >= low * 0.999 && t <= high * 1.001);
  for (let skip = 2; ticks.length > most; skip += 1) ticks = ticks.filter((_, i) => i % skip === 0);
  return ticks;
}

function padded(low, high, share = 0.06) {
  const width = high - low || Math.abs(high) * 0.1 || 0.1;
  return [low - share * width, high + share * width];
}

// An empty plot with axes. x, y: {scale, ticks, text, label}. The returned X and Y turn values into pixels.
function frame(width, height, x, y, title, margin = { top: 14, right: 26, bottom: 38, left: 52 }) {
  const w = width - margin.left - margin.right;
  const h = height - margin.top - margin.bottom;
  const X = (v) => margin.left + w * x.scale.at(v);
  const Y = (v) => margin.top + h * (1 - y.scale.at(v));
  const grid = draw('g', { class: 'grid' });
  for (const tick of y.ticks) {
    grid.append(draw('line', { x1: margin.left, x2: margin.left + w, y1: Y(tick), y2: Y(tick), class: tick === 0 ? 'zero' : null }));
    grid.append(draw('text', { x: margin.left - 7, y: Y(tick) + 3.5, 'text-anchor': 'end' }, y.text(tick)));
  }
  for (const tick of x.ticks) {
    grid.append(draw('line', { x1: X(tick), x2: X(tick), y1: margin.top + h, y2: margin.top + h + 4 }));
    grid.append(draw('text', { x: X(tick), y: margin.top + h + 16, 'text-anchor': 'middle' }, x.text(tick)));
  }
  grid.append(draw('line', { x1: margin.left, x2: margin.left + w, y1: margin.top + h, y2: margin.top + h, class: 'axis' }));
  if (x.label) grid.append(draw('text', { x: margin.left + w / 2, y: height - 4, 'text-anchor': 'middle', class: 'label' }, x.label));
  const svg = draw('svg', { viewBox: `0 0 ${width} ${height}`, width, height, class: 'plot', role: 'img', 'aria-label': title }, grid);
  return { svg, grid, X, Y, left: margin.left, top: margin.top, w, h };
}

const path = (points) => points.map(([x, y], i) => `${i ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');

// Runs of points that belong together: a curve is cut where a step of `cuts` lies between two points.
function pieces(steps, cuts) {
  const found = [];
  let piece = [];
  let cut = 0;
  steps.forEach((step, i) => {
    while (cut < cuts.length && step > cuts[cut]) {
      cut += 1;
      if (piece.length) found.push(piece);
      piece = [];
    }
    piece.push(i);
  });
  if (piece.length) found.push(piece);
  return found;
}

// curve: [steps, mean] or [steps, mean, low, high], in values.
function addCurve(plot, curve, slot, cuts = [], dots = false) {
  const [steps, mean, low, high] = curve;
  const group = draw('g', { class: `s${slot}` });
  for (const piece of pieces(steps, cuts)) {
    if (low && piece.length > 1) {
      const inside = (v) => Math.min(plot.top + plot.h, Math.max(plot.top, plot.Y(v)));
      const edge = piece.map((i) => [plot.X(steps[i]), inside(high[i])]);
      const back = [...piece].reverse().map((i) => [plot.X(steps[i]), inside(low[i])]);
      group.append(draw('path', { d: `${path([...edge, ...back])}Z`, class: 'band' }));
    }
    const points = piece.map((i) => [plot.X(steps[i]), plot.Y(mean[i])]);
    group.append(draw('path', { d: path(points), class: 'line' }));
    if (dots || points.length === 1) for (const [cx, cy] of points) group.append(draw('circle', { cx, cy, r: 2, class: 'dot' }));
  }
  plot.svg.append(group);
}

// The letter of each line behind its last point, moved apart where they would overlap. ends: [{slot, x, y}].
function addLetters(plot, ends) {
  const sorted = [...ends].sort((a, b) => a.y - b.y);
  const gap = 12;
  sorted.forEach((end, i) => { end.at = i ? Math.max(end.y, sorted[i - 1].at + gap) : end.y; });
  const over = sorted.length ? sorted[sorted.length - 1].at - (plot.top + plot.h) : 0;
  if (over > 0) {
    for (let i = sorted.length - 1; i >= 0; i -= 1) {
      const limit = i === sorted.length - 1 ? plot.top + plot.h : sorted[i + 1].at - gap;
      sorted[i].at = Math.min(sorted[i].at, limit);
    }
  }
  for (const end of sorted) {
    plot.svg.append(draw('text', { x: plot.left + plot.w + 7, y: end.at + 4, class: `letter t${end.slot}` }, LETTERS[end.slot]));
  }
}

// Pointer and arrow keys walk over `stops` (values of x); `show(stop)` writes what is there.
function explore(plot, stops, X, show) {
  if (!stops.length) return;
  const line = draw('line', { y1: plot.top, y2: plot.top + plot.h, class: 'cursor', visibility: 'hidden' });
  plot.svg.append(line);
  plot.svg.setAttribute('tabindex', '0');
  let place = -1;
  const go = (i) => {
    place = Math.min(stops.length - 1, Math.max(0, i));
    line.setAttribute('x1', X(stops[place]));
    line.setAttribute('x2', X(stops[place]));
    line.setAttribute('visibility', 'visible');
    show(stops[place]);
  };
  plot.svg.addEventListener('pointermove', (event) => {
    const box = plot.svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * (plot.svg.viewBox.baseVal.width / box.width);
    let best = 0;
    stops.forEach((stop, i) => { if (Math.abs(X(stop) - x) < Math.abs(X(stops[best]) - x)) best = i; });
    if (best !== place) go(best);
  });
  plot.svg.addEventListener('pointerleave', () => { line.setAttribute('visibility', 'hidden'); place = -1; show(null); });
  plot.svg.addEventListener('keydown', (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) { go(place + move); event.preventDefault(); }
    if (event.key === 'Home') { go(0); event.preventDefault(); }
    if (event.key === 'End') { go(stops.length - 1); event.preventDefault(); }
  });
}

// The value of a curve at a step: of the nearest point, none where that is far from it.
function valueAt(curve, step) {
  const [steps, mean, low, high] = curve;
  let best = -1;
  steps.forEach((s, i) => { if (s <= step && (best < 0 || s >= steps[best])) best = i; });
  if (best < 0) return null;
  return { step: steps[best], mean: mean[best], low: low ? low[best] : null, high: high ? high[best] : null };
}
