// Cost against score: every row a point, and the front of those that nothing cheaper beats.

const NAMED = 24; // with more points than these, only those of the front and of chosen rows bear names

function paretoFigure(board) {
  const { data } = board;
  if (!data.costs.length || !data.metrics.length || data.rows.length < 2) return null;
  let cost = data.costs[0].key;
  let metric = data.metric;
  if (!data.metrics.some((m) => m.key === metric)) metric = data.metrics[0].key;
  const oracles = data.rows.some((row) => row.oracle) ? ' Rows that see all data are no part of it.' : '';
  const fig = figure(board, 'Score against cost', `Dashed line: the front. For each row on it, none is both cheaper and better.${oracles} Bars: 95 % intervals.`, '',
    choice('score', data.metrics.map((m) => [m.key, m.name]), metric, (v) => { metric = v; render(); }),
    choice('cost', data.costs.map((c) => [c.key, c.name]), cost, (v) => { cost = v; render(); }));
  function render() {
    const { lower } = data.metrics.find((m) => m.key === metric);
    const points = data.rows.map((row, i) => ({ i, row, value: row.metrics[metric], x: row.costs[cost] }))
      .filter((p) => p.value && p.x != null && !board.hiddenRows.has(p.i))
      .map((p) => ({ ...p, y: p.value[0], low: p.value[1], high: p.value[2] }));
    fig.readout.replaceChildren();
    if (!points.length) { fig.body.replaceChildren(make('p', { class: 'nothing' }, 'No row has both.')); return; }
    const width = fig.body.clientWidth;
    const height = Math.round(Math.min(380, Math.max(260, width * 0.55)));
    const positive = points.map((p) => p.x).filter((x) => x > 0);
    const log = positive.length > 0 && Math.max(...positive) / Math.min(...positive) > 20;
    const zeros = log && positive.length < points.length;
    const [yLow, yHigh] = padded(...spanOf(points), 0.1);
    const yTicks = niceTicks(yLow, yHigh, 5);
    const lowest = log ? Math.min(...positive) / 1.5 : 0;
    const highest = log ? Math.max(...positive) * 1.5 : Math.max(...points.map((p) => p.x)) * 1.06 || 1;
    const base = log ? logarithmic(lowest, highest) : linear(0, highest);
    const room = zeros ? 0.1 : 0;
    const scale = { at: (v) => (zeros && v <= 0 ? room / 2 : room + (1 - room) * base.at(v)) };
    const ticks = log ? [...(zeros ? [0] : []), ...logTicks(lowest, highest, width < 480 ? 4 : 8)] : niceTicks(0, highest, width < 480 ? 3 : 6).ticks;
    const costName = data.costs.find((c) => c.key === cost).name;
    const metricName = data.metrics.find((m) => m.key === metric).name;
    const plot = frame(width, height, { scale, ticks, text: (v) => costText(cost, v), label: `${costName}${log ? ' (logarithmic)' : ''}` },
      { scale: linear(yLow, yHigh), ticks: yTicks.ticks, text: (v) => fixed(v, yTicks.digits) }, `${metricName} against ${costName}, ${points.length} rows`,
      { top: 30, right: 16, bottom: 40, left: 54 });
    plot.grid.append(draw('text', { x: 4, y: 11, class: 'label' }, `${metricName} (${lower ? 'lower' : 'higher'} is better)`));
    const front = frontOf(points.filter((p) => !p.row.oracle), lower);
    const line = front.flatMap((p, i) => (i ? [[plot.X(p.x), plot.Y(front[i - 1].y)], [plot.X(p.x), plot.Y(p.y)]] : [[plot.X(p.x), plot.Y(p.y)]]));
    if (front.length) line.push([plot.left + plot.w, plot.Y(front[front.length - 1].y)]);
    plot.svg.append(draw('path', { d: path(line), class: 'front' }));
    const marks = [...points].reverse().map((p) => mark(board, plot, p, front.includes(p)));
    plot.svg.append(...marks);
    label(board, plot, points, front);
    const order = [...points].sort((a, b) => a.x - b.x);
    const ring = draw('circle', { r: 9, class: 'ring', visibility: 'hidden' });
    plot.svg.append(ring);
    const say = (p) => {
      ring.setAttribute('visibility', p ? 'visible' : 'hidden');
      if (!p) { fig.readout.replaceChildren(); return; }
      ring.setAttribute('cx', plot.X(p.x));
      ring.setAttribute('cy', plot.Y(p.y));
      fig.readout.replaceChildren(make('b', {}, name(p.row.label)), make('span', {}, `${metricName} ${fixed(p.y)}`,
        p.low == null ? '' : make('small', {}, ` ${fixed(p.low)} … ${fixed(p.high)}`)), make('span', {}, `${costName} ${costText(cost, p.x)}`));
    };
    walkPoints(plot, order, say);
    fig.body.replaceChildren(plot.svg);
  }
  board.drawn.push(render);
  return fig.element;
}

// What the axis spans: all means, and intervals as far as they do not stretch it beyond twice that.
function spanOf(points) {
  const low = Math.min(...points.map((p) => p.y));
  const high = Math.max(...points.map((p) => p.y));
  const reach = (high - low) * 0.5 || Math.abs(high) * 0.1 || 0.1;
  const ends = points.flatMap((p) => [p.low, p.high]).filter((v) => v != null && v >= low - reach && v <= high + reach);
  return [Math.min(low, ...ends), Math.max(high, ...ends)];
}

function frontOf(points, lower) {
  const better = (a, b) => (lower ? a < b : a > b);
  const front = [];
  for (const p of [...points].sort((a, b) => a.x - b.x || (lower ? a.y - b.y : b.y - a.y))) {
    if (!front.length || better(p.y, front[front.length - 1].y)) front.push(p);
  }
  return front;
}

function mark(board, plot, p, onFront) {
  const slot = board.chosen.get(p.i);
  const clip = (v) => Math.min(plot.top + plot.h, Math.max(plot.top, plot.Y(v)));
  const x = plot.X(p.x);
  return draw('g', { class: `point${slot === undefined ? '' : ` s${slot}`}${onFront ? ' on-front' : ''}` },
    p.low != null && draw('line', { x1: x, x2: x, y1: clip(p.low), y2: clip(p.high) }),
    onFront ? draw('circle', { cx: x, cy: plot.Y(p.y), r: 5 }) : draw('rect', { x: x - 3.2, y: plot.Y(p.y) - 3.2, width: 6.4, height: 6.4 }));
}

// Names beside points, those of the front and of chosen rows first, where nothing is in the way.
function label(board, plot, points, front) {
  const taken = points.map((p) => ({ x: plot.X(p.x) - 6, y: plot.Y(p.y) - 6, w: 12, h: 12 }));
  const free = (box) => box.x >= plot.left && box.x + box.w <= plot.left + plot.w + 12 && box.y >= plot.top - 8 && box.y + box.h <= plot.top + plot.h
    && !taken.some((t) => box.x < t.x + t.w && t.x < box.x + box.w && box.y < t.y + t.h && t.y < box.y + box.h);
  const weight = (p) => (front.includes(p) ? 0 : board.chosen.has(p.i) ? 1 : 2);
  const named = points.filter((p) => points.length <= NAMED || weight(p) < 2);
  for (const p of [...named].sort((a, b) => weight(a) - weight(b) || a.i - b.i)) {
    const text = p.row.label.length > 30 ? `${p.row.label.slice(0, 29)}…` : p.row.label;
    const w = text.length * 6.1 + 4;
    const [x, y] = [plot.X(p.x), plot.Y(p.y)];
    const places = [[x + 9, y - 6, 'start'], [x - 9 - w, y - 6, 'end'], [x - w / 2, y - 21, 'middle'], [x - w / 2, y + 9, 'middle'], [x + 7, y - 20, 'start'], [x + 7, y + 8, 'start'], [x - 7 - w, y - 20, 'end'], [x - 7 - w, y + 8, 'end']];
    const place = places.map(([bx, by, anchor]) => ({ x: bx, y: by, w, h: 13, anchor })).find(free);
    if (!place) continue;
    taken.push(place);
    const tx = { start: place.x, end: place.x + w, middle: place.x + w / 2 }[place.anchor];
    plot.svg.append(draw('text', { x: tx, y: place.y + 10, 'text-anchor': place.anchor, class: `point-name${weight(p) < 2 ? '' : ' faint'}` }, text));
  }
}

function walkPoints(plot, order, say) {
  let place = -1;
  plot.svg.setAttribute('tabindex', '0');
  plot.svg.addEventListener('pointermove', (event) => {
    const box = plot.svg.getBoundingClientRect();
    const zoom = plot.svg.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * zoom, (event.clientY - box.top) * zoom];
    const far = (p) => (plot.X(p.x) - x) ** 2 + (plot.Y(p.y) - y) ** 2;
    let best = 0;
    order.forEach((p, i) => { if (far(p) < far(order[best])) best = i; });
    place = far(order[best]) < 60 ** 2 ? best : -1;
    say(order[place]);
  });
  plot.svg.addEventListener('pointerleave', () => { place = -1; say(null); });
  plot.svg.addEventListener('keydown', (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    place = Math.min(order.length - 1, Math.max(0, place + move));
    say(order[place]);
    event.preventDefault();
  });
}
